package raftlog

import (
	"sync"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// storage is what raft reads: raft.MemoryStorage, but it does not copy the data
// of a snapshot each time one is asked for. The MemoryStorage inside knows the
// snapshot without its data.
type storage struct {
	*raft.MemoryStorage

	mu   sync.Mutex
	snap *pb.Snapshot // with data; never changed, only replaced
}

func newStorage() *storage {
	return &storage{MemoryStorage: raft.NewMemoryStorage(), snap: pb.EnsureSnapshot(nil)}
}

// Snapshot is the newest snapshot. Its data is shared: nobody may change it.
func (s *storage) Snapshot() (*pb.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &pb.Snapshot{Metadata: proto.Clone(s.snap.GetMetadata()).(*pb.SnapshotMetadata), Data: s.snap.GetData()}, nil
}

// snapIndex is the index of the newest snapshot.
func (s *storage) snapIndex() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snap.GetMetadata().GetIndex()
}

func (s *storage) setSnapshot(snap *pb.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snap = snap
}

// applySnapshot starts the log anew after snap.
func (s *storage) applySnapshot(snap *pb.Snapshot) error {
	if err := s.ApplySnapshot(&pb.Snapshot{Metadata: snap.GetMetadata()}); err != nil {
		return err
	}
	s.setSnapshot(snap)
	return nil
}

// createSnapshot makes snap the newest one and keeps the log.
func (s *storage) createSnapshot(snap *pb.Snapshot) error {
	m := snap.GetMetadata()
	if _, err := s.CreateSnapshot(m.GetIndex(), m.GetConfState(), nil); err != nil {
		return err
	}
	s.setSnapshot(snap)
	return nil
}
