package core

import (
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/core/corepb"
	"ssi/internal/id"
)

// xfer is a snapshot on its way to a node, one at a time for each.
type xfer struct {
	id     uint64
	header []byte
	data   []byte
	raftTo uint64 // 0: to a node without raft state
	acked  uint64
	sent   uint64
	index  uint64
	at     time.Duration // last progress
	tries  int
}

// incoming is a snapshot being received.
type incoming struct {
	from   id.Node
	id     uint64
	header []byte
	total  uint64
	buf    []byte
	toRaft bool
	done   bool
}

func (c *Core) xferNodes() []id.Node { return slices.Sorted(maps.Keys(c.xfers)) }

// sendSnapshot begins the transfer that raft asks for by a MsgSnap.
func (c *Core) sendSnapshot(rm *raftpb.Message) {
	head := proto.Clone(rm).(*raftpb.Message)
	data := head.GetSnapshot().GetData()
	head.Snapshot.Data = nil
	c.transfer(nodeOf(rm.GetTo()), head, data, rm.GetTo(), rm.GetSnapshot().GetMetadata().GetIndex())
}

// feedSnapshot begins the transfer to a follower that needs older entries than
// there are.
func (c *Core) feedSnapshot(f *feed) {
	snap, err := c.storage.Snapshot()
	if err != nil || raft.IsEmptySnap(snap) {
		return
	}
	c.transfer(f.node, snap.GetMetadata(), snap.GetData(), 0, snap.GetMetadata().GetIndex())
}

func (c *Core) transfer(to id.Node, header proto.Message, data []byte, raftTo, index uint64) {
	h, err := proto.Marshal(header)
	if err != nil {
		c.fail(err)
		return
	}
	c.xferSeq++
	c.xfers[to] = &xfer{id: c.xferSeq, header: h, data: data, raftTo: raftTo, index: index, at: c.now}
}

// pumpTransfers sends the chunks that may go.
func (c *Core) pumpTransfers() {
	for _, n := range c.xferNodes() {
		x := c.xfers[n]
		for first := x.sent == 0; first || x.sent < uint64(len(x.data)) && x.sent < x.acked+chunkWindow*chunkBytes; first = false {
			end := min(x.sent+chunkBytes, uint64(len(x.data)))
			ch := &corepb.Chunk{Id: x.id, Offset: x.sent, Total: uint64(len(x.data)), Data: x.data[x.sent:end], ToRaft: x.raftTo != 0}
			if x.sent == 0 {
				ch.Header = x.header
			}
			c.newMsg(n, int(end-x.sent)+len(ch.Header)).Chunk = ch
			x.sent = end
			if x.sent == 0 {
				x.sent = 1 // an empty snapshot is one chunk
			}
		}
	}
}

// tickTransfers repeats what got lost, and gives up on nodes that do not answer.
func (c *Core) tickTransfers() {
	for _, n := range c.xferNodes() {
		x := c.xfers[n]
		if c.now < x.at+c.t.Election {
			continue
		}
		if x.tries++; x.tries > 5 {
			c.endTransfer(n, x, false)
			continue
		}
		x.at, x.sent = c.now, x.acked
	}
}

func (c *Core) endTransfer(n id.Node, x *xfer, ok bool) {
	delete(c.xfers, n)
	if x.raftTo != 0 && c.rn != nil {
		status := raft.SnapshotFinish
		if !ok {
			status = raft.SnapshotFailure
		}
		c.step(func() { c.rn.ReportSnapshot(x.raftTo, status) })
		return
	}
	if c.lead == nil {
		return
	}
	if !ok {
		c.lead.unfollow(n) // its next hello begins anew
	} else if i, found := c.lead.feedOf(n); found {
		c.lead.fed(n, c.lead.feeds[i].inc, x.index, c.now)
	}
}

func (c *Core) receiveChunkAck(from id.Node, a *corepb.ChunkAck) {
	x := c.xfers[from]
	if x == nil || x.id != a.GetId() {
		return
	}
	switch {
	case a.GetDone() || a.GetRefused():
		c.endTransfer(from, x, a.GetDone())
	case a.GetHave() > x.acked && a.GetHave() <= uint64(len(x.data)):
		x.acked, x.at, x.tries = a.GetHave(), c.now, 0
		x.sent = max(x.sent, x.acked)
	}
}

// receiveChunk puts a snapshot together.
func (c *Core) receiveChunk(from id.Node, ch *corepb.Chunk) {
	ack := &corepb.ChunkAck{Id: ch.GetId()}
	in := c.in
	if in == nil || in.from != from || in.id != ch.GetId() {
		if ch.GetOffset() != 0 || ch.GetTotal() > MaxSnapshot || from != c.leaderNode || in != nil && in.from == from && in.id > ch.GetId() {
			return
		}
		in = &incoming{from: from, id: ch.GetId(), header: ch.GetHeader(), total: ch.GetTotal(), toRaft: ch.GetToRaft()}
		c.in = in
	}
	if in.done {
		ack.Done = true
	} else if ch.GetOffset() == uint64(len(in.buf)) && uint64(len(in.buf)+len(ch.GetData())) <= in.total {
		in.buf = append(in.buf, ch.GetData()...)
		if uint64(len(in.buf)) == in.total {
			in.done = true
			ack.Done = c.takeSnapshot(in)
			ack.Refused = !ack.Done
			in.buf, in.header = nil, nil
		}
	}
	ack.Have = uint64(len(in.buf))
	c.msg(from, 32).ChunkAck = ack
}

// takeSnapshot uses a complete snapshot.
func (c *Core) takeSnapshot(in *incoming) bool {
	if in.toRaft {
		rm := &raftpb.Message{}
		if err := proto.Unmarshal(in.header, rm); err != nil || c.rn == nil || rm.GetType() != raftpb.MsgSnap ||
			rm.GetSnapshot() == nil || !c.acceptable(in.from, rm) {
			return false
		}
		rm.Snapshot.Data = in.buf
		c.stepMessage(rm)
		return true
	}
	meta := &raftpb.SnapshotMetadata{}
	if err := proto.Unmarshal(in.header, meta); err != nil || c.rn != nil || c.assigned != 0 {
		return false
	}
	if meta.GetIndex() > c.rep.index || c.void {
		c.restore(meta, in.buf)
	}
	return true
}
