package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
)

// MaxSave is the size limit of what one Save writes, in bytes.
const MaxSave = 64 << 20

// keepBuffer is the largest write buffer that is kept for the next Save.
const keepBuffer = 1 << 20

// Log is an open log.
type Log struct {
	dir  string // the log's directory
	sub  string // the directory within that has the files
	id   Identity
	log  *slog.Logger
	disk disk
	mem  *storage
	lock *os.File

	snapMu sync.Mutex // one snapshot at a time; before mu

	mu       sync.Mutex
	segments []*segment // ascending; the last one is written
	marks    []mark     // the snapshots that count, ascending, one or two; none in a new log
	state    *pb.HardState
	durable  *pb.HardState // the state on disk
	buf      []byte
	failed   error // why nothing is written any more
}

// Identity says whose log it is.
func (l *Log) Identity() Identity { return l.id }

// Storage is the log as raft reads it. It may be used until the process ends,
// also after Close.
func (l *Log) Storage() raft.Storage { return l.mem }

func (l *Log) active() *segment { return l.segments[len(l.segments)-1] }

// Save makes a hard state, entries and a snapshot from the leader durable, in
// the manner of raft.Ready: each may be empty. Entries replace those of the same
// and of higher index. It syncs the disk if there are entries or a snapshot, if
// term or vote changed, or if mustSync is set; a new commit index alone is
// written later.
//
// After an error nothing was saved as far as raft may know: it must not send
// what follows from it. If errors.Is(err, unix.ENOSPC), or unix.EDQUOT, the
// same Save may be tried again; after any other the log has to be closed.
func (l *Log) Save(state *pb.HardState, entries []*pb.Entry, snap *pb.Snapshot, mustSync bool) error {
	if raft.IsEmptySnap(snap) {
		return l.save(state, entries, nil, mustSync)
	}
	l.snapMu.Lock()
	defer l.snapMu.Unlock()
	return l.save(state, entries, snap, mustSync)
}

func (l *Log) save(state *pb.HardState, entries []*pb.Entry, snap *pb.Snapshot, mustSync bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	if raft.IsEmptyHardState(state) {
		state = l.state
	}
	if err := l.check(state, entries, snap); err != nil {
		return err
	}
	if len(entries) == 0 && snap == nil && !mustSync &&
		state.GetTerm() == l.durable.GetTerm() && state.GetVote() == l.durable.GetVote() {
		l.state = state
		return l.mem.SetHardState(state)
	}

	var m *mark
	if snap != nil {
		crc, err := writeSnapshot(l.sub, l.id, snap)
		if err != nil {
			return l.writeError("snapshot", err)
		}
		meta := snap.GetMetadata()
		m = &mark{index: meta.GetIndex(), term: meta.GetTerm(), crc: crc, received: true}
	}
	payload, err := payloadOf(state, entries, m)
	if err != nil {
		return l.writeError("save", err)
	}
	if err := l.write(payload, endBlocks); err != nil {
		return err
	}

	l.state, l.durable = state, state
	if err := l.mem.SetHardState(state); err != nil {
		return l.fail(err)
	}
	if snap != nil {
		old := l.marks
		l.marks = []mark{*m}
		if err := l.mem.applySnapshot(snap); err != nil {
			return l.fail(err)
		}
		l.dropSnapshots(old)
		l.active().last = max(l.active().last, m.index)
	}
	if n := len(entries); n > 0 {
		if err := l.mem.Append(entries); err != nil {
			return l.fail(err)
		}
		l.active().last = max(l.active().last, entries[n-1].GetIndex())
	}
	return nil
}

// check refuses what would leave the log without meaning.
func (l *Log) check(state *pb.HardState, entries []*pb.Entry, snap *pb.Snapshot) error {
	bad := func(format string, args ...any) error {
		return errno.New(errno.Invalid, "raft log save", l.id.Node, format, args...)
	}
	last, err := l.mem.LastIndex()
	if err != nil {
		return err
	}
	first, err := l.mem.FirstIndex()
	if err != nil {
		return err
	}
	if snap != nil {
		index := snap.GetMetadata().GetIndex()
		if index <= l.mem.snapIndex() {
			return bad("snapshot %d is not newer than %d", index, l.mem.snapIndex())
		}
		first, last = index+1, index
	}
	if n := len(entries); n > 0 {
		begin := entries[0].GetIndex()
		if begin < first || begin > last+1 || begin <= l.state.GetCommit() {
			return bad("entry %d does not fit to the log from %d to %d with commit index %d", begin, first, last, l.state.GetCommit())
		}
		term := snap.GetMetadata().GetTerm()
		if snap == nil {
			if term, err = l.mem.Term(begin - 1); err != nil {
				return err
			}
		}
		for i, e := range entries {
			if e.GetIndex() != begin+uint64(i) || e.GetTerm() < term {
				return bad("entry %d of term %d does not fit to the log", e.GetIndex(), e.GetTerm())
			}
			term = e.GetTerm()
		}
		if term > state.GetTerm() {
			return bad("entries of term %d come with a hard state of term %d", term, state.GetTerm())
		}
		last = entries[n-1].GetIndex()
	}
	if state.GetCommit() > last {
		return bad("commit index %d is over the last index %d", state.GetCommit(), last)
	}
	if state.GetTerm() < l.state.GetTerm() {
		return bad("term %d is below %d", state.GetTerm(), l.state.GetTerm())
	}
	return nil
}

// payloadOf encodes the records of a group.
func payloadOf(state *pb.HardState, entries []*pb.Entry, m *mark) ([]byte, error) {
	var b []byte
	var err error
	size := 0
	for _, e := range entries {
		if size += recordHead + proto.Size(e); size > MaxSave {
			return nil, fmt.Errorf("over the limit of %d bytes", MaxSave)
		}
	}
	b = make([]byte, 0, size+64)
	if m != nil {
		b = appendMark(b, *m)
	}
	if !raft.IsEmptyHardState(state) {
		if b, err = appendProto(b, recState, state); err != nil {
			return nil, err
		}
	}
	for _, e := range entries {
		if b, err = appendProto(b, recEntry, e); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// write makes a group durable, in a new segment if it does not leave so many
// blocks free behind it.
func (l *Log) write(payload []byte, behind int) error {
	n := groupBlocks(len(payload))
	if !l.active().room(n, behind) {
		if err := l.roll(n); err != nil {
			return err
		}
	}
	return l.writeGroup(payload)
}

// writeGroup makes a group durable in the active segment.
func (l *Log) writeGroup(payload []byte) error {
	s := l.active()
	b, chain := appendGroup(l.buf[:0], s.seed, s.at, payload)
	if l.buf = b; cap(b) > keepBuffer {
		l.buf = nil
	}
	off := int64(s.at.block) * blockSize
	if err := l.disk.pwrite(s.file, b, off); err != nil {
		// A part of the group may be there: away with it. It was never
		// synced, so it is no promise.
		clear(b)
		undo := l.disk.pwrite(s.file, b, off)
		if undo == nil {
			undo = l.disk.fdatasync(s.file)
		}
		if undo != nil || !full(err) {
			return l.fail(err)
		}
		return l.writeError("write", err)
	}
	if err := l.disk.fdatasync(s.file); err != nil {
		return l.fail(err)
	}
	s.at = position{group: s.at.group + 1, chain: chain, block: s.at.block + uint32(len(b)/blockSize)}
	return nil
}

// roll begins a new segment with room for a group of n blocks.
func (l *Log) roll(n int) error {
	s := l.active()
	last, err := l.mem.LastIndex()
	if err != nil {
		return err
	}
	payload, err := l.headOf(last)
	if err != nil {
		return l.writeError("new segment", err)
	}
	// The new segment follows the end of the old one, which is written only
	// when the new one is there: an end without a successor is damage.
	end := appendRecord(nil, recEnd, nil)
	_, chain := appendGroup(nil, s.seed, s.at, end)
	h := segmentHeader{
		id: l.id, seq: s.seq + 1, first: last + 1,
		blocks: uint32(1 + groupBlocks(len(payload)) + n + endBlocks),
		at:     position{group: s.at.group + 1, chain: chain},
	}
	next, err := l.disk.createSegment(l.sub, h, payload)
	if err != nil {
		if full(err) {
			return l.writeError("new segment", err)
		}
		return l.fail(err)
	}
	if err := l.writeGroup(end); err != nil {
		_ = next.file.Close()
		return l.fail(err)
	}
	if err := s.file.Close(); err != nil {
		_ = next.file.Close()
		return l.fail(err)
	}
	s.file = nil
	next.last = max(s.last, last)
	l.segments = append(l.segments, next)
	return nil
}

// headOf encodes the first group of a segment.
func (l *Log) headOf(last uint64) ([]byte, error) {
	b := appendBase(nil, last)
	for _, m := range l.marks {
		m.received = false // the log before it is not in this segment anyway
		b = appendMark(b, m)
	}
	if raft.IsEmptyHardState(l.durable) {
		return b, nil
	}
	return appendProto(b, recState, l.durable)
}

// fail ends the writing for good.
func (l *Log) fail(err error) error {
	l.failed = fmt.Errorf("raft log %s: write failed, the log is closed until the node starts again: %w", l.dir, err)
	l.log.Error("raft log failed", "op", "raft log", "err", l.failed)
	return l.failed
}

// TakeSnapshot makes data, the state after the entry of this index, the newest
// snapshot, and deletes the segments and snapshots that are not needed any more.
// The index must be committed; the error is raft.ErrSnapOutOfDate if there is a
// newer one. data must not be changed afterwards. It may run while another
// goroutine calls Save. If errors.Is(err, unix.ENOSPC) nothing has changed.
func (l *Log) TakeSnapshot(index uint64, conf *pb.ConfState, data []byte) error {
	l.snapMu.Lock()
	defer l.snapMu.Unlock()
	l.mu.Lock()
	failed, commit := l.failed, l.state.GetCommit()
	l.mu.Unlock()
	if failed != nil {
		return failed
	}
	if index <= l.mem.snapIndex() {
		return raft.ErrSnapOutOfDate
	}
	if index > commit {
		return errno.New(errno.Invalid, "raft log snapshot", l.id.Node, "index %d is not committed, %d is", index, commit)
	}
	term, err := l.mem.Term(index)
	if err != nil {
		return errno.New(errno.Invalid, "raft log snapshot", l.id.Node, "index %d is not in the log: %w", index, err)
	}
	snap := &pb.Snapshot{Data: data, Metadata: &pb.SnapshotMetadata{
		Index: &index, Term: &term, ConfState: pb.EnsureConfState(proto.Clone(conf).(*pb.ConfState)),
	}}
	crc, err := writeSnapshot(l.sub, l.id, snap)
	if full(err) {
		// A snapshot is what makes space again: give it the reserve.
		_ = os.Remove(filepath.Join(l.sub, reserveFile))
		crc, err = writeSnapshot(l.sub, l.id, snap)
	}
	if err != nil {
		return l.writeError("snapshot", err)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	m := mark{index: index, term: term, crc: crc}
	payload, err := payloadOf(l.state, nil, &m)
	if err != nil {
		return l.writeError("snapshot", err)
	}
	if err := l.write(payload, 1); err != nil {
		return err
	}
	l.durable = l.state
	if err := l.mem.createSnapshot(snap); err != nil {
		return l.fail(err)
	}
	l.marks = append(l.marks, m)
	if n := len(l.marks) - 2; n > 0 {
		old := l.marks[:n]
		l.marks = l.marks[n:]
		l.dropSnapshots(old)
	}
	l.dropSegments()
	l.keepReserve()
	return nil
}

// dropSnapshots deletes the files of snapshots that do not count any more. One
// that stays behind costs space until the next Open.
func (l *Log) dropSnapshots(old []mark) {
	for _, m := range old {
		if err := os.Remove(snapshotPath(l.sub, m.index)); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.log.Warn("old snapshot stays", "op", "raft log", "err", err)
		}
	}
}

// dropSegments deletes the segments that the oldest snapshot covers, oldest
// first, so that those that are left are always without a gap.
func (l *Log) dropSegments() {
	for len(l.segments) > 1 && len(l.marks) > 0 && l.segments[0].last <= l.marks[0].index {
		if err := os.Remove(l.segments[0].path); err != nil {
			l.log.Warn("old segment stays", "op", "raft log", "err", err)
			return
		}
		l.segments = l.segments[1:]
	}
}

// Compact frees the memory of the entries up to an index, which a snapshot must
// cover. Followers that need them get the snapshot.
func (l *Log) Compact(index uint64) error {
	if snap := l.mem.snapIndex(); index > snap {
		return errno.New(errno.Invalid, "raft log compact", l.id.Node, "index %d is over that of the snapshot, %d", index, snap)
	}
	if err := l.mem.Compact(index); err != nil && !errors.Is(err, raft.ErrCompacted) {
		return err
	}
	return nil
}

// Close writes what is not written yet and releases the log. The error tells
// that the commit index could not be written, which loses nothing.
func (l *Log) Close() error {
	l.snapMu.Lock()
	defer l.snapMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock == nil {
		return nil
	}
	var err error
	if l.failed == nil && !proto.Equal(l.state, l.durable) {
		var payload []byte
		if payload, err = payloadOf(l.state, nil, nil); err == nil {
			err = l.write(payload, endBlocks)
		}
	}
	err = errors.Join(err, l.active().file.Close(), l.lock.Close())
	l.lock = nil
	if l.failed == nil {
		l.failed = fmt.Errorf("raft log %s: %w", l.dir, os.ErrClosed)
	}
	return err
}
