package ics

import (
	"errors"
	"testing"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// TestBackoff: who was declared dead, and who refuses this node, is dialled after
// pauses that grow longer than those of a member.
func TestBackoff(t *testing.T) {
	tn := newNet(t)
	const short, long = time.Millisecond, 20 * time.Millisecond
	one := tn.start(1, func(c *Config) { c.Limits.BackoffMax, c.Limits.BackoffGone = short, long })
	silent, refusal := errors.New("nobody is there"), errno.New(errno.Permission, "", 2, "revoked")
	peer := func(n id.Node) *peer {
		p := one.peerOf(n)
		p.out.started = true // by this test, which is its goroutine
		return p
	}
	one.SetView(1, map[id.Node]Peer{2: {Member: true}, 3: {Gone: true}, 4: {}})
	for _, c := range []struct {
		n    id.Node
		err  error
		want time.Duration
	}{{2, silent, short}, {2, refusal, long}, {3, silent, long}, {4, silent, short}} {
		p := peer(c.n)
		select {
		case <-p.out.now: // of the first view, if that changed anything for this peer
		default:
		}
		pause := time.Microsecond
		for range 20 {
			p.out.rest(&pause, c.err)
		}
		if pause != c.want {
			t.Errorf("after %q from node %d, a pause of %v; want %v", c.err, c.n, pause, c.want)
		}
		signal(p.out.now)
	}
}

// TestGoneIsHeardOf: a peer that is gone is dialled at once when it dials this
// node, and when the membership has it again.
func TestGoneIsHeardOf(t *testing.T) {
	for name, comeBack := range map[string]func(*testNet){
		"it dials":   func(tn *testNet) { tn.nodes[2].Send(1, []byte("I am back")) },
		"membership": func(tn *testNet) { tn.view(2) },
	} {
		t.Run(name, func(t *testing.T) {
			tn := newNet(t)
			one := tn.start(1, nil)
			two := tn.start(2, nil)
			two.SetView(1, tn.peers())
			gone := tn.peers()
			gone[2] = Peer{Addr: gone[2].Addr, Gone: true, Incarnation: gone[2].Incarnation}
			one.SetView(1, gone)
			o := one.peerOf(2).out
			<-o.now // of the view
			rested := make(chan time.Duration)
			go func() {
				pause := time.Hour
				o.rest(&pause, errors.New("nobody is there"))
				rested <- pause
			}()
			comeBack(tn)
			if pause := within(t, "end of the pause", rested); pause != backoffMin {
				t.Errorf("the next pause is %v", pause)
			}
		})
	}
}
