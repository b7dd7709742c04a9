package core

import (
	"time"

	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// version is what this node writes; it reads all up to it.
const version = 1

// Encode is the form a message has on the wire.
func Encode(m *Message) ([]byte, error) { return proto.Marshal(m) }

// Decode reads what Encode wrote. Fields it does not know are ignored.
func Decode(b []byte) (*Message, error) {
	if len(b) > MaxMessage+MaxMessage/4 {
		return nil, errno.New(errno.Invalid, "cluster message", 0, "%d bytes are over the limit", len(b))
	}
	m := &Message{}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, errno.New(errno.Invalid, "cluster message", 0, "%w", err)
	}
	return m, nil
}

// openMsg is a message being filled.
type openMsg struct {
	msg  *Message
	size int
}

// newMsg begins a message to a node.
func (c *Core) newMsg(to id.Node, size int) *Message {
	m := &Message{Version: version, Cluster: c.cfg.Cluster, Recovery: c.recovery, Incarnation: uint64(c.inc)}
	c.outs = append(c.outs, Outgoing{To: to, Msg: m})
	c.open[to] = &openMsg{msg: m, size: size + 128}
	return m
}

// msg is the message to a node that takes another part of size bytes. Of a part
// that can be there only once, the newest counts.
func (c *Core) msg(to id.Node, size int) *Message {
	if o := c.open[to]; o != nil && o.size+size <= MaxMessage {
		o.size += size
		return o.msg
	}
	return c.newMsg(to, size)
}

// raftMsg is msg for a part meant for one raft ID.
func (c *Core) raftMsg(to uint64, size int) *Message {
	m := c.msg(nodeOf(to), size)
	if m.RaftTo != 0 && m.RaftTo != to {
		m = c.newMsg(nodeOf(to), size)
	}
	m.RaftTo = to
	return m
}

// Receive takes a message of the node that the transport authenticated as from.
// now is read after the message arrived.
func (c *Core) Receive(now time.Duration, from id.Node, m *Message) {
	c.clock(now)
	if c.fatal != nil || !from.Valid() || from == c.cfg.Self {
		return
	}
	if m.GetCluster() != c.cfg.Cluster {
		c.foreign++
		if c.foreign == 1 {
			c.notice("node %d sends messages of another cluster (%.64q); they are dropped: is it a second cluster on this network?", from, m.GetCluster())
		}
		return
	}
	if m.GetVersion() == 0 || m.GetVersion() > version {
		c.notice("node %d speaks version %d of the cluster protocol, this node up to %d: its messages are dropped, update this node", from, m.GetVersion(), version)
		return
	}
	if !c.sameRecovery(from, m) {
		return
	}
	c.met[from] = max(c.now, 1)
	if len(m.GetRaft()) > 0 {
		c.receiveRaft(from, m)
	}
	if m.GetBeat() != nil {
		c.receiveBeat(from, m)
	}
	if m.GetBeatAck() != nil {
		c.receiveBeatAck(from, m)
	}
	if m.GetAnnounce() != nil {
		c.receiveAnnounce(from, m.GetAnnounce())
	}
	if m.GetHello() != nil {
		c.receiveHello(from, m)
	}
	if m.GetHelloReply() != nil {
		c.receiveHelloReply(from, m)
	}
	if len(m.GetProposals()) > 0 && c.lead != nil {
		c.accept(from, id.Incarnation(m.GetIncarnation()), m.GetProposals())
	}
	if m.GetRead() != nil {
		c.receiveRead(from, m)
	}
	if m.GetReadReply() != nil {
		c.receiveReadReply(m)
	}
	if m.GetFeed() != nil {
		c.receiveFeed(from, m.GetFeed())
	}
	if a := m.GetFeedAck(); a != nil && c.lead != nil {
		c.lead.fed(from, id.Incarnation(m.GetIncarnation()), a.GetApplied(), c.now)
	}
	if m.GetChunk() != nil {
		c.receiveChunk(from, m.GetChunk())
	}
	if m.GetChunkAck() != nil {
		c.receiveChunkAck(from, m.GetChunkAck())
	}
}

// sameRecovery keeps the recovery generations apart: whoever has an older one
// was forced out.
func (c *Core) sameRecovery(from id.Node, m *Message) bool {
	switch r := m.GetRecovery(); {
	case r == c.recovery:
		return true
	case r == 0: // a node that comes new
		return m.GetHello() != nil
	case c.recovery == 0:
		c.recovery = r
		return true
	case r > c.recovery:
		c.forcedOut(r)
		return false
	default:
		if !m.GetForced() {
			c.newMsg(from, 0).Forced = true
		}
		return false
	}
}
