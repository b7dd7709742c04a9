package core

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/core/corepb"
	"ssi/internal/id"
)

// Of two voters both are needed, so one of them that comes back with its log lost
// (a node with its state in memory, after a power cut) would leave the other
// unable to decide for good. But then nothing is unknown: whatever was
// acknowledged was in both logs and is in the one that is left, and the lost
// voter itself says that its log, and with it every vote it gave, is gone. So the
// survivor goes on alone, and takes the other in again like a new node.

// survives looks at a hello for that testimony, and begins to go on alone.
func (c *Core) survives(from id.Node, h *corepb.Hello) {
	if c.rn == nil || c.lead != nil || c.leaderNode != 0 || c.ready != nil || c.guarded() || c.forced != nil || c.rn.HasReady() {
		return
	}
	conf := c.rep.conf
	if v := conf.GetVoters(); len(v) != 2 || len(conf.GetVotersOutgoing()) > 0 || !slices.Contains(v, c.raftID) {
		return
	}
	other := conf.GetVoters()[0]
	if other == c.raftID {
		other = conf.GetVoters()[1]
	}
	gen := c.rep.gens[from]
	// Only a process younger than the one that got the raft ID can know that its
	// log is lost; an older one, whose hello was late, did not have it yet.
	if nodeOf(other) != from || h.GetRaftId() != 0 || gen.last != other>>16 || !(process{h.GetOrigin(), h.GetProcess()}).after(gen.to) {
		return
	}
	tail, ok := c.tail()
	if !ok {
		return
	}
	c.notice("node %d, the only other voter, has lost its log: this node has all that was decided and goes on as the only voter", from)
	for _, e := range tail {
		if c.applyEntry(e); c.fatal != nil {
			return
		}
	}
	// The new beginning stands one entry after the old end, in a term of its own.
	c.rep.index++
	c.rep.term = c.term + 1
	c.rep.conf = proto.Clone(c.rep.conf).(*raftpb.ConfState)
	c.rep.conf.Voters = []uint64{c.raftID}
	snap, err := c.rep.snapshotAt()
	if err != nil {
		c.fail(err)
		return
	}
	c.forced = &Output{
		Snapshot: snap, MustSync: true,
		HardState: &raftpb.HardState{Term: new(c.rep.term), Vote: new(uint64(0)), Commit: new(c.rep.index)},
	}
}

// tail is the entries of the log that this node has not applied, and not ok if
// there is a change of the voters among them that might let others decide without
// this node.
func (c *Core) tail() (tail []*raftpb.Entry, ok bool) {
	last, err := c.storage.LastIndex()
	if err != nil {
		return nil, false
	}
	conf := c.rep.conf
	for next := c.rep.index + 1; next <= last; {
		entries, err := c.storage.Entries(next, last+1, batchBytes)
		if err != nil || len(entries) == 0 {
			return nil, false
		}
		for _, e := range entries {
			if e.GetType() == raftpb.EntryNormal {
				continue
			}
			cc, err := confChangeOf(e)
			if err != nil {
				return nil, false
			}
			if after, err := changed(conf, cc); err == nil {
				conf = after
			}
			same, alone := slices.Equal(conf.GetVoters(), c.rep.conf.GetVoters()), slices.Equal(conf.GetVoters(), []uint64{c.raftID})
			if !same && !alone || len(conf.GetVotersOutgoing()) > 0 {
				return nil, false
			}
		}
		tail = append(tail, entries...)
		next += uint64(len(entries))
	}
	return tail, true
}

// goOnAlone starts consensus anew from what Output told to persist.
func (c *Core) goOnAlone() {
	c.forced = nil
	if err := c.startRaft(c.raftID, c.storage); err != nil {
		c.fail(err)
	}
}
