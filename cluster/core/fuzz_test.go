package core

import (
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/core/corepb"
	"ssi/cluster/member"
	"ssi/internal/id"
)

// fuzzed is a core with raft state (a lone leader) or without, that has run for a
// moment.
func fuzzed(t testing.TB, voter bool) (*Core, *raft.MemoryStorage) {
	t.Helper()
	cfg := Config{Cluster: "test", Self: 1, Incarnation: 7, Timing: fast(t), AutoUp: true, Contacts: []id.Node{2},
		Info: member.Info{Addr: "10.0.0.1:1985", Capable: true}}
	st := raft.NewMemoryStorage()
	if voter {
		cfg.RaftID, cfg.Recovery, cfg.Storage, cfg.Bootstrap = FirstRaftID(1), NextRecovery(0, 1), st, true
	}
	c, err := New(cfg, newKV())
	if err != nil {
		t.Fatal(err)
	}
	for now := time.Second; now < 2*time.Second; now += 10 * time.Millisecond {
		c.Tick(now, time.Unix(1e9, 0))
		drain(t, c, st)
	}
	return c, st
}

func drain(t testing.TB, c *Core, st *raft.MemoryStorage) {
	t.Helper()
	for range 1000 {
		out := c.Ready()
		if out == nil || out.Fatal != nil {
			return
		}
		if out.Snapshot != nil {
			_ = st.ApplySnapshot(out.Snapshot)
		}
		if err := st.Append(out.Entries); err != nil {
			t.Fatal(err)
		}
		if out.HardState != nil {
			_ = st.SetHardState(out.HardState)
		}
		for _, o := range out.Messages {
			if b, err := Encode(o.Msg); err != nil || len(b) > MaxMessage {
				t.Fatalf("a message of %d bytes: %v", len(b), err)
			}
		}
		c.Advance()
	}
	t.Fatal("the core never comes to rest")
}

// FuzzReceive gives a node what another node, authenticated but mad, may send. It
// must not panic, grow without bound, or lose what it holds to another's word.
func FuzzReceive(f *testing.F) {
	add := func(m *Message) {
		m.Version, m.Cluster, m.Recovery, m.Incarnation = version, "test", NextRecovery(0, 1), 5
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
		f.Add(b, false)
	}
	raftMsg := func(t raftpb.MessageType) []byte {
		b, err := proto.Marshal(&raftpb.Message{Type: t.Enum(), From: new(uint64(1<<16 | 2)), To: new(FirstRaftID(1)), Term: new(uint64(9)),
			Index: new(uint64(1)), LogTerm: new(uint64(1)), Commit: new(uint64(3)), Entries: []*raftpb.Entry{{Index: new(uint64(2)), Term: new(uint64(9)), Data: []byte("x")}}})
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	add(&Message{RaftTo: FirstRaftID(1), Raft: [][]byte{raftMsg(raftpb.MsgApp), raftMsg(raftpb.MsgVote), raftMsg(raftpb.MsgHeartbeat)}, Beat: &corepb.Beat{Term: 9, Seq: 1}})
	add(&Message{Hello: &corepb.Hello{Sent: 1, Info: []byte(`{"addr":"a:1"}`)}})
	add(&Message{HelloReply: &corepb.HelloReply{Sent: 1, Leading: true, Granted: true, Incarnation: 7, Term: 99, Known: 9, RaftGone: true}})
	add(&Message{Proposals: []*corepb.Proposal{{Seq: 1, Lowest: 1, Kind: 2, Data: []byte("a|b|c")}}, Read: &corepb.Read{Seq: 3}})
	add(&Message{Feed: &corepb.Feed{Term: 9, Entries: [][]byte{{8, 0}}}, FeedAck: &corepb.FeedAck{Applied: 99}})
	add(&Message{Chunk: &corepb.Chunk{Id: 1, Total: 3, Data: []byte("abc")}, ChunkAck: &corepb.ChunkAck{Id: 1, Have: 7}})
	add(&Message{Announce: &corepb.Announce{Term: 99, Leader: 2}, BeatAck: &corepb.Beat{Term: 2, Seq: 1 << 40}})
	add(&Message{ReadReply: &corepb.ReadReply{Seq: 1 << 62, Index: 1}, Forced: true})
	f.Fuzz(func(t *testing.T, b []byte, voter bool) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		c, st := fuzzed(t, voter)
		was := c.Status()
		c.Receive(2*time.Second, 2, m)
		drain(t, c, st)
		c.Tick(2100*time.Millisecond, time.Unix(1e9, 0))
		drain(t, c, st)
		if !voter && c.Status().Serving {
			t.Error("a node that never joined serves")
		}
		if c.Status().Init.Held && !was.Init.Held {
			t.Error("a message made this node init holder")
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{8, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Decode(b); err == nil {
			if _, err := Encode(m); err != nil {
				t.Error(err)
			}
		}
	})
}

// FuzzRestore gives the replica damaged snapshots: it says so, or takes them.
func FuzzRestore(f *testing.F) {
	c, _ := fuzzed(f, true)
	data, err := c.rep.snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReplica(newKV())
		meta := &raftpb.SnapshotMetadata{Index: new(uint64(5)), Term: new(uint64(2)), ConfState: &raftpb.ConfState{Voters: []uint64{FirstRaftID(1)}}}
		if r.restore(meta, b) == nil {
			if _, err := r.snapshot(); err != nil {
				t.Error(err)
			}
		}
	})
}

// BenchmarkWrite is the processor time of the cores for one write acknowledged by
// three nodes, 16 at a time, without network and disk.
func BenchmarkWrite(b *testing.B) {
	w := newWorld(1, 3, fast(b))
	w.wire = true
	w.Conditions.MinDelay, w.Conditions.MaxDelay = time.Microsecond, 2*time.Microsecond
	w.startAll()
	if !w.Run(20*time.Second, func() bool { return w.up() && len(w.node(1).status.Voters) == 3 }) {
		b.Fatal(w.states())
	}
	b.ReportAllocs()
	b.ResetTimer()
	done, open := 0, 0
	n := w.node(2)
	for done < b.N {
		for open < 16 && done+open < b.N {
			open++
			n.propose(App, []byte("bad"), 10*time.Second, func(Outcome) { open--; done++ })
		}
		w.Run(w.Now()+10*time.Millisecond, func() bool { return open == 0 })
	}
}
