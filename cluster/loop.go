package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/member"
	"ssi/cluster/raftlog"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// maxBatch is how many messages and calls the loop takes in before it carries
// out what they led to: one write to the disk serves them all.
const maxBatch = 256

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

// receive takes a message of a peer; it never waits.
func (c *Cluster) receive(from id.Node, raw []byte) {
	msg, err := core.Decode(raw)
	if err != nil {
		c.log.Warn("message dropped", "peer", from, "err", err)
		return
	}
	select {
	case c.inbox <- inbound{from, boottime(), msg}:
	default: // as if the network had lost it
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
			c.core.Receive(m.at, m.from, m.msg)
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
		timer.Reset(min(max(c.core.Wake()-boottime(), 0), outcomeGrace/2))
	}
}

// drain takes what waits already, without waiting for more.
func (c *Cluster) drain() {
	for range maxBatch {
		select {
		case m := <-c.inbox:
			c.core.Receive(m.at, m.from, m.msg)
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
	var attach *raftlog.Log
	if out.NewRaft != nil {
		ident := c.diskIdentity(out.NewRaft.RaftID, out.NewRaft.Recovery)
		disk, err := raftlog.Create(filepath.Join(c.cfg.Dir, dirRaft), ident, out.NewRaft.Snapshot, c.log)
		if err != nil {
			return fmt.Errorf("create the cluster's log: %w", err)
		}
		attach = disk
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
		c.log.Info(n)
	}
	if out.Fatal != nil {
		return out.Fatal
	}
	c.core.Advance()
	if attach != nil {
		c.disk = attach
		if err := c.core.Attach(attach.Storage()); err != nil {
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
	if err := saveIncarnation(filepath.Join(c.cfg.RunDir, "incarnation"), inc); err != nil {
		return err
	}
	c.log.Warn("this node was declared dead and joins again", "incarnation", inc)
	return ErrRestart
}

// publish makes the new state visible to the rest of the daemon.
func (c *Cluster) publish(out *core.Output) {
	if v := c.store.View(); v.Revision() != c.revision.Load() || out.Restored {
		c.hub.Publish(v)
		c.revision.set(v.Revision())
	}
	if len(out.Transitions) > 0 || out.Restored {
		view := c.core.View()
		before := c.members.Load()
		c.setPeers(view)
		c.members.set(view)
		for _, t := range out.Transitions {
			c.log.Info("transition", "epoch", t.Epoch, "node", t.Node, "from", t.From, "to", t.To, "init", t.Init, "cause", t.Cause)
		}
		c.reportGone(before, view)
		c.savePeers(view)
	}
	c.status.set(out.Status)
	c.recheckRevoked()
}

// reportGone tells of nodes whose life ended between two views.
func (c *Cluster) reportGone(before, after *member.View) {
	if c.cfg.OnGone == nil {
		return
	}
	for _, old := range before.Nodes {
		now := after.Get(old.Node)
		if old.State.Alive() && old.Node != c.self && (!now.State.Alive() || now.Incarnation != old.Incarnation) {
			c.cfg.OnGone(old.Node, now.Cause)
		}
	}
}
