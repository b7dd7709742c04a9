package lab

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ssi/internal/id"
)

func (c *commands) cut() *cobra.Command {
	var oneWay bool
	cmd := c.verb("cut A B [--one-way]", "cut two nodes from each other", `cut drops all that nodes A and B send to each other, broadcasts included; other
nodes still reach both. With --one-way only what A sends to B is dropped. heal
ends it.`, `  ssi lab cut 1 2
  ssi lab cut 1 2 --one-way`, 2, 2, func(ctx context.Context, l *Lab, args []string) error {
		a, b, err := c.pair(args)
		if err != nil {
			return err
		}
		return l.Cut(ctx, a, b, oneWay)
	})
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "only what A sends to B")
	return cmd
}

func (c *commands) heal() *cobra.Command {
	return c.verb("heal [A [B]]", "end the faults of the network", `heal ends all cuts, delays and losses: those between A and B, those of node A, or
all.`, `  ssi lab heal
  ssi lab heal 1 2`, 0, 2, func(ctx context.Context, l *Lab, args []string) error {
		a, b, err := c.pair(args)
		if err != nil {
			return err
		}
		return l.Heal(ctx, a, b)
	})
}

func (c *commands) delay() *cobra.Command {
	return c.verb("delay NODE|A:B TIME", "delay what nodes send", `delay holds back every frame that NODE sends and receives, or those between A and
B in each direction, by TIME (at most 10s); a round trip takes twice that. 0 ends
it.`, `  ssi lab delay 2 50ms
  ssi lab delay 1:3 200ms
  ssi lab delay 2 0`, 2, 2, func(ctx context.Context, l *Lab, args []string) error {
		a, b, err := c.pair(strings.Split(args[0], ":"))
		if err != nil {
			return err
		}
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return c.env.Usage(fmt.Sprintf("%q is no time: write 50ms or 1.5s", args[1]))
		}
		return l.Delay(ctx, a, b, d)
	})
}

func (c *commands) loss() *cobra.Command {
	return c.verb("loss NODE|A:B SHARE", "lose some of what nodes send", `loss drops a random SHARE, in percent, of the frames that NODE sends and receives,
or of those between A and B. 0 ends it. Which ones is fixed by up's --seed.`, `  ssi lab loss 2 10%
  ssi lab loss 1:3 0.5%`, 2, 2, func(ctx context.Context, l *Lab, args []string) error {
		a, b, err := c.pair(strings.Split(args[0], ":"))
		if err != nil {
			return err
		}
		percent, err := strconv.ParseFloat(strings.TrimSuffix(args[1], "%"), 64)
		if err != nil {
			return c.env.Usage(fmt.Sprintf("%q is no share: write 10%%", args[1]))
		}
		return l.Loss(ctx, a, b, percent/100)
	})
}

// pair reads up to two nodes.
func (c *commands) pair(args []string) (a, b id.Node, err error) {
	if len(args) > 2 {
		return 0, 0, c.env.Usage("name one node, or two as A:B")
	}
	for i, to := range []*id.Node{&a, &b} {
		if i < len(args) && err == nil {
			*to, err = c.node(args[i])
		}
	}
	return a, b, err
}
