package core

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/core/corepb"
	"ssi/internal/id"
)

// feed is how far a node without raft state follows this leader's log.
type feed struct {
	node     id.Node
	inc      id.Incarnation
	next     uint64   // first entry not sent
	acked    uint64   // last entry known to be there
	inflight []uint64 // last entry of each message on its way
	at       time.Duration
}

func (l *leader) feedOf(n id.Node) (int, bool) {
	return slices.BinarySearchFunc(l.feeds, n, func(f *feed, n id.Node) int { return int(f.node) - int(n) })
}

// follow begins or goes on to feed a node that has applied the log up to there.
func (l *leader) follow(n id.Node, inc id.Incarnation, applied uint64) {
	i, ok := l.feedOf(n)
	if !ok {
		l.feeds = slices.Insert(l.feeds, i, &feed{node: n, inc: inc, next: applied + 1, acked: applied})
		return
	}
	if f := l.feeds[i]; f.inc != inc || applied < f.acked { // it lost its state
		l.feeds[i] = &feed{node: n, inc: inc, next: applied + 1, acked: applied}
	}
}

func (l *leader) unfollow(n id.Node) {
	if i, ok := l.feedOf(n); ok {
		l.feeds = slices.Delete(l.feeds, i, i+1)
	}
}

// fed notes how far a follower has come.
func (l *leader) fed(n id.Node, inc id.Incarnation, applied uint64, now time.Duration) {
	i, ok := l.feedOf(n)
	if !ok || l.feeds[i].inc != inc || applied < l.feeds[i].acked {
		return
	}
	f := l.feeds[i]
	f.acked, f.at = applied, now
	f.inflight = slices.DeleteFunc(f.inflight, func(last uint64) bool { return last <= applied })
	f.next = max(f.next, applied+1)
}

// pumpFeeds sends what followers miss.
func (c *Core) pumpFeeds() {
	l := c.lead
	if len(l.feeds) == 0 || !c.settled() {
		return
	}
	last, err := c.storage.LastIndex()
	if err != nil {
		c.fail(err)
		return
	}
	last = min(last, c.rep.index)
	first, err := c.storage.FirstIndex()
	if err != nil {
		c.fail(err)
		return
	}
	for _, f := range l.feeds {
		if len(f.inflight) > 0 && c.now > f.at+4*c.t.Heartbeat { // lost on the way
			f.next, f.inflight, f.at = f.acked+1, nil, c.now
		}
		if c.xfers[f.node] != nil {
			continue
		}
		if f.next <= last && f.next < first {
			c.feedSnapshot(f)
			continue
		}
		for f.next <= last && len(f.inflight) < feedWindow {
			entries, err := c.storage.Entries(f.next, last+1, batchBytes)
			if err != nil || len(entries) == 0 {
				break
			}
			c.feedEntries(f, entries, last)
		}
	}
}

func (c *Core) feedEntries(f *feed, entries []*raftpb.Entry, commit uint64) {
	fd := &corepb.Feed{Term: c.lead.term, Commit: commit}
	size := 0
	for _, e := range entries {
		b, err := proto.Marshal(e)
		if err != nil {
			c.fail(err)
			return
		}
		fd.Entries = append(fd.Entries, b)
		size += len(b) + 8
	}
	m := c.msg(f.node, size)
	if m.Feed != nil {
		m = c.newMsg(f.node, size)
	}
	m.Feed = fd
	if len(f.inflight) == 0 {
		f.at = c.now
	}
	f.next = entries[len(entries)-1].GetIndex() + 1
	f.inflight = append(f.inflight, f.next-1)
}

// receiveFeed applies what the leader sends.
func (c *Core) receiveFeed(from id.Node, fd *corepb.Feed) {
	if c.rn != nil || c.assigned != 0 || c.void {
		return
	}
	if fd.GetTerm() > c.leaderTerm {
		c.setLeader(from, fd.GetTerm())
	}
	if from != c.leaderNode {
		return
	}
	for _, b := range fd.GetEntries() {
		e := &raftpb.Entry{}
		if err := proto.Unmarshal(b, e); err != nil {
			return
		}
		if e.GetIndex() > c.rep.index+1 {
			break
		}
		if e.GetIndex() == c.rep.index+1 {
			c.applyEntry(e)
		}
		if c.fatal != nil || c.assigned != 0 {
			return
		}
	}
	c.msg(from, 16).FeedAck = &corepb.FeedAck{Applied: c.rep.index}
}
