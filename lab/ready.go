package lab

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

const (
	readyPoll = 10 * time.Millisecond // a question costs about 0.2 ms
	readyCall = 2 * time.Second       // for one answer
)

// waitUp returns when the first start is over and the lowest node that is on sees
// every node that is on as UP.
func (s *supervisor) waitUp(ctx context.Context) error {
	select {
	case <-s.booted:
	case <-ctx.Done():
		return errno.New(errno.Timeout, "lab", 0, "the nodes were not laid out in time")
	}
	s.mu.Lock()
	err := s.bootErr
	s.mu.Unlock()
	if err != nil {
		return err
	}
	boots := s.bootsOf()
	for {
		why, err := s.up(ctx, boots)
		if err != nil || why == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return errno.New(errno.Timeout, "lab", 0, "not all nodes came UP: %s; see `ssi lab logs`", why)
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-time.After(readyPoll):
		}
	}
}

// bootsOf lists the nodes that are on and how often each was started.
func (s *supervisor) bootsOf() map[id.Node]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	boots := map[id.Node]int{}
	for n, m := range s.machines {
		if m.state == On {
			boots[n] = m.boots
		}
	}
	return boots
}

// up says what is still missing, or nothing. It is an error when a node went off
// meanwhile.
func (s *supervisor) up(ctx context.Context, boots map[id.Node]int) (string, error) {
	var asked *machine
	for _, m := range s.all() {
		if boots[m.n] == 0 {
			continue
		}
		if state, _ := m.get(); state == Off && s.ctx.Err() == nil {
			return "", errno.New(errno.Unavailable, "lab", m.n, "it went off: %s; its last words: %s", s.causeOf(m), lastWords(m.console))
		}
		if asked == nil {
			asked = m
		}
	}
	if asked == nil {
		return "", errno.New(errno.Unavailable, "lab", 0, "no node is on")
	}
	ctx, cancel := context.WithTimeout(ctx, readyCall)
	defer cancel()
	c, err := asked.dial(ctx)
	if err != nil {
		return fmt.Sprintf("node %d does not answer", asked.n), nil
	}
	defer c.Close()
	var status api.ClusterStatus
	if err := c.Call(ctx, api.MethodClusterStatus, api.StatusParams{}, &status); err != nil {
		return err.Error(), nil
	}
	var missing []string
	for n := id.Node(1); n.Valid(); n++ {
		if boots[n] == 0 {
			continue
		}
		if info, ok := status.Find(n); !ok || info.State != api.Up {
			state := api.NeverUp
			if ok {
				state = info.State
			}
			missing = append(missing, fmt.Sprintf("node %d is %s", n, state))
		}
	}
	return strings.Join(missing, ", "), nil
}

func (s *supervisor) causeOf(m *machine) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.cause
}

// lastWords is the end of a console, on one line.
func lastWords(c *console) string {
	lines := strings.Split(strings.TrimSpace(c.tail(2000)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}
