package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/id"
)

const (
	failoverMedian = 500  // ms
	failoverWorst  = 1000 // ms
	kills          = 20
	etcdKills      = 7
	tryTime        = 50 * time.Millisecond // of one write before it is tried again
	retryPause     = 2 * time.Millisecond
	failoverLimit  = 20 * time.Second
	pauseFor       = 300 * time.Millisecond
	pausesFor      = 60 * time.Second
)

// writer tries one write.
type writer func(ctx context.Context) error

// firstWrite has each writer try until one of them succeeds; a try that takes
// longer than tryTime is given up.
func firstWrite(ctx context.Context, writers []writer) error {
	ctx, cancel := context.WithTimeout(ctx, failoverLimit)
	defer cancel()
	var wg sync.WaitGroup
	done := make(chan struct{}, len(writers))
	last := make([]error, len(writers))
	for i, w := range writers {
		wg.Go(func() {
			for ctx.Err() == nil {
				try, stop := context.WithTimeout(ctx, tryTime)
				err := w(try)
				stop()
				if err == nil {
					done <- struct{}{}
					return
				}
				if ctx.Err() == nil {
					last[i] = err
				}
				select {
				case <-ctx.Done():
				case <-time.After(retryPause):
				}
			}
		})
	}
	var err error
	select {
	case <-done:
		cancel()
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	wg.Wait()
	if err != nil {
		return errors.Join(err, errors.Join(last...))
	}
	return nil
}

// writerOn writes to the registry through node n; it connects again when its
// connection is gone.
func (s *site) writerOn(n id.Node) (w writer, end func()) {
	var c *api.Client
	end = func() {
		if c != nil {
			_ = c.Close()
			c = nil
		}
	}
	return func(ctx context.Context) error {
		if c == nil {
			var err error
			if c, err = s.dial(ctx, n); err != nil {
				c = nil
				return err
			}
		}
		err := c.Call(ctx, api.MethodRegistryPut, api.RegistryPutParams{Key: "/bench/failover", Value: []byte("x")}, nil)
		if err != nil {
			end()
		}
		return err
	}, end
}

// measureFailover kills the holder of init, in turn by a power cut and by kill -9
// of its node role, and writes through the others.
func measureFailover(ctx context.Context, s *site) ([]Result, error) {
	var all, cuts, kill9 []time.Duration
	for i := range kills {
		d, err := s.failover(ctx, i%2 == 0)
		if err != nil {
			return nil, fmt.Errorf("kill %d: %w", i+1, err)
		}
		all = append(all, d)
		if i%2 == 0 {
			cuts = append(cuts, d)
		} else {
			kill9 = append(kill9, d)
		}
		s.say("failover %d of %d: %d ms", i+1, kills, d.Milliseconds())
	}
	r := Result{Figure: "init killed, next write accepted", Unit: ms, Stats: statsOf(ms, durations(ms, all)),
		Budgets: []Budget{{Limit: failoverMedian}, {Limit: failoverWorst, Worst: true}}}
	p := Peer{Name: "etcd, kill -9 of the leader"}
	if list, err := etcdFailovers(ctx, s); err == nil {
		p.Stats = statsOf(ms, durations(ms, list))
	} else {
		p.Error = err.Error()
	}
	r.Peers = []Peer{p}
	return []Result{r,
		{Figure: "… by a power cut", Unit: ms, Stats: statsOf(ms, durations(ms, cuts))},
		{Figure: "… by kill -9 of the node role", Unit: ms, Stats: statsOf(ms, durations(ms, kill9))},
	}, nil
}

// failover kills the holder of init once and returns when all nodes are well
// again.
func (s *site) failover(ctx context.Context, cut bool) (time.Duration, error) {
	victim, err := s.allVote(ctx)
	if err != nil {
		return 0, err
	}
	var writers []writer
	for n := id.Node(1); n <= nodes; n++ {
		if n != victim {
			w, end := s.writerOn(n)
			defer end()
			if err := w(ctx); err != nil { // connects, and proves that it works
				return 0, err
			}
			writers = append(writers, w)
		}
	}
	roles, err := s.roles(victim)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if cut {
		err = s.lab.Crash(ctx, victim)
	} else {
		err = killAndWait(ctx, roles[roleNode])
	}
	if err != nil {
		return 0, err
	}
	// What is written from here on cannot have been accepted by the victim.
	if err := firstWrite(ctx, writers); err != nil {
		return 0, err
	}
	took := time.Since(began)
	if cut {
		if err := s.lab.StartNode(ctx, victim); err != nil {
			return 0, err
		}
	}
	_, err = s.allVote(ctx)
	return took, err
}

// killAndWait kills a process and waits until it is gone.
func killAndWait(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		return err
	}
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 50); n > 0 && err == nil {
			return nil
		}
	}
	return context.Cause(ctx)
}

// etcdFailovers kills the leader of etcd and writes through the others.
func etcdFailovers(ctx context.Context, s *site) ([]time.Duration, error) {
	e, err := startEtcd(ctx)
	if err != nil {
		return nil, err
	}
	defer e.close()
	var list []time.Duration
	for i := range etcdKills {
		leader, err := e.leader(ctx)
		if err != nil {
			return nil, err
		}
		var writers []writer
		for _, m := range e.members {
			if m != leader {
				writers = append(writers, func(ctx context.Context) error { return m.put(ctx, "failover", "x") })
			}
		}
		began := time.Now()
		leader.kill()
		if err := firstWrite(ctx, writers); err != nil {
			return nil, err
		}
		list = append(list, time.Since(began))
		s.say("etcd failover %d of %d: %d ms", i+1, etcdKills, list[i].Milliseconds())
		if err := leader.start(); err != nil {
			return nil, err
		}
		if err := e.await(ctx); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// measurePauses stops a random node for 300 ms, again and again: init must stay
// where it is.
func measurePauses(ctx context.Context, s *site) ([]Result, error) {
	if _, err := s.allVote(ctx); err != nil {
		return nil, err
	}
	before, err := s.status(ctx, 1)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 2)) // the same pauses each time
	n := 0
	for start := time.Now(); time.Since(start) < pausesFor; n++ {
		node := id.Node(1 + rng.IntN(nodes))
		if err := s.lab.Pause(ctx, node); err != nil {
			return nil, err
		}
		if err := pauseOf(ctx, pauseFor); err != nil {
			return nil, errors.Join(err, s.lab.Resume(context.WithoutCancel(ctx), node))
		}
		if err := s.lab.Resume(ctx, node); err != nil {
			return nil, err
		}
		if err := pauseOf(ctx, time.Duration(100+rng.IntN(600))*time.Millisecond); err != nil {
			return nil, err
		}
	}
	c, err := s.dial(ctx, before.InitNode)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var h api.HistoryReply
	if err := c.Call(ctx, api.MethodClusterHistory, api.HistoryParams{After: before.Transition}, &h); err != nil {
		return nil, err
	}
	moves, others := 0, 0
	for _, t := range h.Transitions {
		if t.Term != 0 {
			moves++
		} else {
			others++
		}
	}
	return []Result{{
		Figure: "init moved in 60 s of 300 ms pauses", Unit: count, Budgets: []Budget{{Limit: 0}},
		Stats: Stats{N: n, Median: float64(moves), Worst: float64(moves), Best: float64(moves)},
		Note:  fmt.Sprintf("%d pauses of random nodes, %d other transitions", n, others),
	}}, nil
}

func pauseOf(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
