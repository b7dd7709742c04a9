package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// maxBatch is how many messages and calls the loop takes in before it carries
// out what they led to: one write to the disk serves them all.
const maxBatch = 256

// maxSleep is how long the loop sleeps at most: the machine's sleep stops its
// timer, but not the time that the core counts.
const maxSleep = time.Second

// send runs f in the loop.
func (c *Cluster) send(ctx context.Context, f func()) error {
	select {
	case c.calls <- f:
		return nil
	case <-ctx.Done():
		return errno.New(errno.Timeout, "cluster call", c.self, "the daemon is busy: %w", context.Cause(ctx))
	case <-c.ended:
		return errno.New(errno.Unavailable, "cluster call", c.self, "the daemon is stopping")
	}
}

// run runs f in the loop and waits for it.
func (c *Cluster) run(ctx context.Context, f func()) error {
	done := make(chan struct{})
	if err := c.send(ctx, func() { f(); close(done) }); err != nil {
		return err
	}
	<-done // the loop runs what it took
	return nil
}

// receive takes a message of a peer; it never waits.
func (c *Cluster) receive(from id.Node, raw []byte) {
	msg, err := core.Decode(raw)
	if err != nil {
		c.log.Warn("message dropped", "peer", from, "err", err)
		return
	}
	m := inbound{from, boottime(), int64(len(raw)), msg}
	if c.inboxBytes.Add(m.size) <= maxInboxBytes {
		select {
		case c.inbox <- m:
			return
		default:
		}
	}
	c.inboxBytes.Add(-m.size) // as if the network had lost it
}

// unreachable takes the transport's hint that a peer was not reached; it never
// waits.
func (c *Cluster) unreachable(n id.Node) {
	select {
	case c.lost <- n:
	default: // it is only a hint, and there are others
	}
}

// loop drives the core until ctx ends or the core cannot go on.
func (c *Cluster) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer c.compacting.Wait()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			c.core.Tick(boottime(), time.Now())
		case m := <-c.inbox:
			c.core.Tick(boottime(), time.Now())
			c.take(m)
		case n := <-c.lost:
			c.core.Tick(boottime(), time.Now())
			c.core.PeerLost(n)
		case f := <-c.calls:
			c.core.Tick(boottime(), time.Now())
			f()
		}
		c.drain()
		if c.stop != nil {
			return c.stop
		}
		for out := c.core.Ready(); out != nil; out = c.core.Ready() {
			if err := c.carryOut(ctx, out); err != nil {
				return err
			}
		}
		timer.Reset(min(max(c.core.Wake()-boottime(), 0), maxSleep))
	}
}

func (c *Cluster) take(m inbound) {
	c.inboxBytes.Add(-m.size)
	c.core.Receive(m.at, m.from, m.msg)
}

// drain takes what waits already, without waiting for more.
func (c *Cluster) drain() {
	for range maxBatch {
		select {
		case m := <-c.inbox:
			c.take(m)
		case f := <-c.calls:
			f()
		default:
			return
		}
	}
}

// carryOut does what core.Output asks, in the order it documents.
func (c *Cluster) carryOut(ctx context.Context, out *core.Output) error {
	if out.DropRaft {
		if err := c.dropDisk(); err != nil {
			return err
		}
	}
	if out.NewRaft != nil {
		if err := c.createDisk(ctx, out.NewRaft); err != nil {
			return err
		}
	}
	if err := c.save(ctx, out); err != nil {
		return err
	}
	c.fence.set(&out.Status)
	for _, o := range out.Messages {
		raw, err := core.Encode(o.Msg)
		if err != nil {
			return fmt.Errorf("encode a message: %w", err)
		}
		c.transport.Send(o.To, raw)
	}
	c.publish(out)
	for _, o := range out.Outcomes {
		if done := c.waiting[o.Req]; done != nil {
			delete(c.waiting, o.Req)
			done <- o // has room for it
		}
	}
	if out.Compact != nil && c.disk != nil {
		c.compact(out.Compact)
	}
	for _, n := range out.Notices {
		c.log.Info("note", "text", n)
	}
	if out.Fatal != nil {
		return out.Fatal
	}
	c.core.Advance()
	if out.NewRaft != nil {
		if err := c.core.Attach(c.disk.Storage()); err != nil {
			return err
		}
	}
	return c.checkLife(out.Status.Incarnation)
}

// checkLife makes the daemon start anew when the node was declared dead: what
// its earlier life left in any subsystem goes with the process.
func (c *Cluster) checkLife(inc id.Incarnation) error {
	if inc == 0 || inc == c.inc {
		return nil
	}
	if err := saveIncarnation(filepath.Join(c.cfg.RunDir, fileIncarnation), inc); err != nil {
		return err
	}
	c.log.Warn("this node was declared dead and joins again", "incarnation", inc)
	return ErrRestart
}

// publish makes the new state visible to the rest of the daemon.
func (c *Cluster) publish(out *core.Output) {
	if len(out.Transitions) > 0 || out.Restored {
		before := c.members.Load()
		view := c.core.View()
		c.adopt(view)
		for _, t := range out.Transitions {
			if t.Init {
				c.log.Info("init holder", "epoch", t.Epoch, "node", t.Node, "term", t.Term, "cause", t.Cause)
			} else {
				c.log.Info("transition", "epoch", t.Epoch, "node", t.Node, "from", t.From, "to", t.To, "cause", t.Cause)
			}
		}
		c.reportGone(before, view)
	} else if c.store.View().Revision() != c.revision.Load() {
		c.publishRegistry()
	}
	if now := lasting(out.Status); !reflect.DeepEqual(now, lasting(c.status.Load())) {
		c.status.set(out.Status)
	}
}

// lasting is a status without what changes all the time, so that an idle node
// wakes nobody: the times up to which it may act (the fence has them) and the log
// index.
func lasting(s core.Status) core.Status {
	s.ServingUntil, s.Lead.Until, s.Init.Until, s.Applied = 0, 0, 0, 0
	return s
}

// adopt publishes what the core holds: the membership and the registry.
func (c *Cluster) adopt(view *member.View) {
	c.setPeers(view)
	c.members.set(view)
	c.publishRegistry()
}

func (c *Cluster) publishRegistry() {
	v := c.store.View()
	c.hub.Publish(v)
	c.revision.set(v.Revision())
	c.recheckRevoked()
}
