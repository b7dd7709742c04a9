package raftlog

import (
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// replay is what the records of a log add up to.
type replay struct {
	entries []*pb.Entry // without a gap; those before the oldest mark may be missing
	next    uint64      // index of the entry after the last, from 1
	marks   []mark      // ascending, at most two
	state   *pb.HardState

	segments int  // begun so far
	begun    bool // the present segment has had its first record
}

func (p *replay) beginSegment() { p.segments++; p.begun = false }

// first is the lowest index from which on all entries are there.
func (p *replay) first() uint64 {
	if len(p.entries) == 0 {
		return p.next
	}
	return p.entries[0].GetIndex()
}

// covers reports whether the log goes on after a snapshot without a gap.
func (p *replay) covers(m mark) bool { return p.first() <= m.index+1 && m.index < p.next }

func (p *replay) add(r record) error {
	if p.begun == (r.base != nil) {
		return fmt.Errorf("the records of a segment's beginning are not where they belong")
	}
	switch {
	case r.base != nil:
		p.begun = true
		return p.addBase(*r.base)
	case r.mark != nil:
		return p.addMark(*r.mark)
	case r.state != nil:
		if r.state.GetTerm() < p.state.GetTerm() {
			return fmt.Errorf("term %d follows term %d", r.state.GetTerm(), p.state.GetTerm())
		}
		p.state = r.state
	case r.entry != nil:
		return p.addEntry(r.entry)
	}
	return nil
}

// addBase begins a segment: it repeats the marks, which follow.
func (p *replay) addBase(last uint64) error {
	if p.segments == 1 {
		p.next = last + 1
	} else if p.next != last+1 {
		return fmt.Errorf("the segment continues a log that ends at %d, the one before ends at %d", last, p.next-1)
	}
	if last == ^uint64(0) {
		return fmt.Errorf("impossible index %d", last)
	}
	p.marks = nil
	return nil
}

func (p *replay) addMark(m mark) error {
	if n := len(p.marks); n > 0 && m.index < p.marks[n-1].index {
		return fmt.Errorf("snapshot %d follows snapshot %d", m.index, p.marks[n-1].index)
	}
	if m.received {
		p.entries, p.next, p.marks = nil, m.index+1, []mark{m}
		return nil
	}
	if m.index >= p.next {
		return fmt.Errorf("snapshot %d is ahead of the log, which ends at %d", m.index, p.next-1)
	}
	if n := len(p.marks); n > 0 && m.index == p.marks[n-1].index {
		p.marks = p.marks[:n-1]
	}
	p.marks = append(p.marks, m)
	if n := len(p.marks); n > 2 {
		p.marks = p.marks[n-2:]
	}
	return nil
}

func (p *replay) addEntry(e *pb.Entry) error {
	i := e.GetIndex()
	switch {
	case i == 0 || i > p.next:
		return fmt.Errorf("entry %d follows entry %d", i, p.next-1)
	case i <= p.first():
		p.entries = p.entries[:0]
	default:
		p.entries = p.entries[:i-p.first()]
	}
	p.entries = append(p.entries, e)
	p.next = i + 1
	return nil
}

// finish checks what the log says about itself and makes the storage from it.
// load reads a snapshot; its errors are returned as they are.
func (p *replay) finish(load func(mark) (*pb.Snapshot, error)) (s *storage, lost error, err error) {
	s = newStorage()
	if len(p.marks) == 0 && p.first() != 1 {
		return nil, nil, fmt.Errorf("the log begins at entry %d and names no snapshot", p.first())
	}
	var snap *pb.Snapshot
	if n := len(p.marks); n > 0 {
		newest := p.marks[n-1]
		if !p.covers(newest) {
			return nil, nil, fmt.Errorf("the log from %d to %d does not follow snapshot %d", p.first(), p.next-1, newest.index)
		}
		if snap, err = load(newest); err != nil {
			if n == 1 || !p.covers(p.marks[0]) {
				return nil, nil, err
			}
			lost = err
			if snap, err = load(p.marks[0]); err != nil {
				return nil, nil, lost
			}
			p.marks = p.marks[:1]
		}
	}
	if err := p.fill(s, snap); err != nil {
		return nil, nil, err
	}
	return s, lost, nil
}

// fill puts snapshot and entries into a new storage. It keeps the entries since
// the oldest snapshot, for followers that lag a little.
func (p *replay) fill(s *storage, snap *pb.Snapshot) error {
	index := snap.GetMetadata().GetIndex()
	base := &pb.SnapshotMetadata{}
	if snap != nil {
		base = snap.GetMetadata()
		if m := p.marks[0]; p.covers(m) && m.index < index {
			base = &pb.SnapshotMetadata{Index: &m.index, Term: &m.term}
		}
		if err := s.applySnapshot(&pb.Snapshot{Metadata: base, Data: snap.GetData()}); err != nil {
			return err
		}
	}
	last := base.GetTerm()
	for _, e := range p.entries {
		if e.GetIndex() <= base.GetIndex() {
			continue
		}
		if e.GetTerm() < last {
			return fmt.Errorf("entry %d has term %d, the one before has term %d", e.GetIndex(), e.GetTerm(), last)
		}
		if last = e.GetTerm(); e.GetIndex() == index && last != snap.GetMetadata().GetTerm() {
			return fmt.Errorf("entry %d has term %d, the snapshot of it has term %d", index, last, snap.GetMetadata().GetTerm())
		}
	}
	if len(p.entries) > 0 {
		if err := s.Append(p.entries[base.GetIndex()+1-p.first():]); err != nil {
			return err
		}
	}
	if index > base.GetIndex() {
		if err := s.createSnapshot(snap); err != nil {
			return err
		}
	}

	if p.state == nil {
		p.state = &pb.HardState{}
	}
	switch {
	case p.state.GetTerm() < last:
		return fmt.Errorf("the log ends in term %d, the hard state is of term %d", last, p.state.GetTerm())
	case p.state.GetCommit() >= p.next:
		return fmt.Errorf("the log ends at %d, but %d was committed", p.next-1, p.state.GetCommit())
	case p.state.GetCommit() < index:
		// The commit index is written late; a snapshot is of what is committed.
		p.state = &pb.HardState{Term: new(p.state.GetTerm()), Vote: new(p.state.GetVote()), Commit: &index}
	}
	if raft.IsEmptyHardState(p.state) {
		return nil
	}
	return s.SetHardState(p.state)
}
