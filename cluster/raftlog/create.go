package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"ssi/internal/errno"
)

// State is all that a log holds. The zero State is that of a new voter.
type State struct {
	HardState *pb.HardState // nil: none
	Snapshot  *pb.Snapshot  // nil: none; with index 0 only its ConfState counts
	Entries   []*pb.Entry   // those after Snapshot, without a gap
}

func (s State) check() error {
	index := s.Snapshot.GetMetadata().GetIndex()
	last, term := index, s.Snapshot.GetMetadata().GetTerm()
	for _, e := range s.Entries {
		if e.GetIndex() != last+1 || e.GetTerm() < term {
			return fmt.Errorf("entry %d of term %d follows entry %d of term %d", e.GetIndex(), e.GetTerm(), last, term)
		}
		last, term = e.GetIndex(), e.GetTerm()
	}
	if c := s.HardState.GetCommit(); c > last || s.HardState.GetTerm() < term {
		return fmt.Errorf("commit index %d and term %d do not fit to entry %d of term %d", c, s.HardState.GetTerm(), last, term)
	}
	return nil
}

// Create makes a log, durable when it returns, and opens it. snap, if not nil,
// is the state it starts with. The directory is made if need be; if there is a
// log in it already, errors.Is(err, fs.ErrExist). A crash leaves either the
// whole log or none.
func Create(dir string, id Identity, snap *pb.Snapshot, logger *slog.Logger) (*Log, error) {
	if err := id.check(); err != nil {
		return nil, errno.New(errno.Invalid, "raft log create", 0, "%w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("raft log: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	l, err := create(dir, lock, id, snap, logger, realDisk())
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return l, nil
}

func create(dir string, lock *os.File, id Identity, snap *pb.Snapshot, logger *slog.Logger, d disk) (*Log, error) {
	subs, err := numbered(dir, subPrefix)
	if err != nil {
		return nil, fmt.Errorf("raft log: %w", err)
	}
	if len(subs) > 0 {
		return nil, fmt.Errorf("raft log: there is a log in %s already: %w", dir, fs.ErrExist)
	}
	st := State{Snapshot: snap}
	if m := snap.GetMetadata(); m.GetIndex() > 0 {
		st.HardState = &pb.HardState{Term: new(m.GetTerm()), Commit: new(m.GetIndex())}
	}
	if err := build(dir, id, st, d); err != nil {
		return nil, fmt.Errorf("raft log %s: create: %w", dir, err)
	}
	if err := syncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, fmt.Errorf("raft log %s: create: %w", dir, err)
	}
	return openLocked(dir, lock, id, logger, d)
}

// build makes a log with this state and gives it its name as the last step.
func build(dir string, id Identity, st State, d disk) error {
	if err := st.check(); err != nil {
		return err
	}
	tmp := filepath.Join(dir, buildDir)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	payload := appendBase(nil, st.Snapshot.GetMetadata().GetIndex())
	if st.Snapshot != nil {
		snap := pb.EnsureSnapshot(st.Snapshot)
		crc, err := writeSnapshot(tmp, id, snap)
		if err != nil {
			return err
		}
		payload = appendMark(payload, mark{index: snap.Metadata.GetIndex(), term: snap.Metadata.GetTerm(), crc: crc})
	}
	var err error
	if !raft.IsEmptyHardState(st.HardState) {
		if payload, err = appendProto(payload, recState, st.HardState); err != nil {
			return err
		}
	}
	for _, e := range st.Entries {
		if payload, err = appendProto(payload, recEntry, e); err != nil {
			return err
		}
	}
	if err := writeSynced(filepath.Join(tmp, identityFile), []byte(id.text())); err != nil {
		return err
	}
	h := segmentHeader{id: id, seq: 1, first: st.Snapshot.GetMetadata().GetIndex() + 1, at: position{group: 1}}
	seg, err := d.createSegment(tmp, h, payload)
	if err != nil {
		return err
	}
	if err := seg.file.Close(); err != nil {
		return err
	}
	return publish(tmp, subPath(dir, id.Recovery))
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// State is what the log holds. Nothing in it may be changed.
func (l *Log) State() (State, error) {
	hard, _, err := l.mem.InitialState()
	if err != nil {
		return State{}, err
	}
	snap, err := l.mem.Snapshot()
	if err != nil {
		return State{}, err
	}
	last, err := l.mem.LastIndex()
	if err != nil {
		return State{}, err
	}
	st := State{HardState: hard, Snapshot: snap}
	if after := snap.GetMetadata().GetIndex() + 1; after <= last {
		if st.Entries, err = l.mem.Entries(after, last+1, ^uint64(0)); err != nil {
			return State{}, err
		}
	}
	return st, nil
}

// Remove closes the log and deletes it for good: its raft ID must never be used
// again.
func (l *Log) Remove() error {
	l.snapMu.Lock()
	defer l.snapMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock == nil {
		return fmt.Errorf("raft log %s: remove: %w", l.dir, os.ErrClosed)
	}
	l.failed = fmt.Errorf("raft log %s: %w", l.dir, os.ErrClosed)
	tmp := filepath.Join(l.dir, buildDir)
	err := os.RemoveAll(tmp)
	if err == nil {
		err = publish(l.sub, tmp) // under this name it means nothing, however much of it is left
	}
	if err == nil {
		err = os.RemoveAll(tmp)
	}
	err = errors.Join(err, l.active().file.Close(), l.lock.Close())
	l.lock = nil
	if err != nil {
		return fmt.Errorf("raft log %s: remove: %w", l.dir, err)
	}
	return nil
}

// Replace gives the log of a stopped node another state, made from the present
// one by edit, under a higher recovery generation. It is all or nothing.
func Replace(dir string, recovery uint64, edit func(State) (State, error), logger *slog.Logger) error {
	l, err := Open(dir, Identity{}, logger)
	if err != nil {
		return err
	}
	err = l.replace(recovery, edit)
	if e := l.Close(); err == nil {
		err = e
	}
	return err
}

func (l *Log) replace(recovery uint64, edit func(State) (State, error)) error {
	if recovery <= l.id.Recovery {
		return errno.New(errno.Invalid, "raft log replace", l.id.Node, "recovery generation %d is not over %d", recovery, l.id.Recovery)
	}
	st, err := l.State()
	if err != nil {
		return err
	}
	if st, err = edit(st); err != nil {
		return err
	}
	id := l.id
	id.Recovery = recovery
	if err := build(l.dir, id, st, l.disk); err != nil {
		return fmt.Errorf("raft log %s: replace: %w", l.dir, err)
	}
	// From here on the new one counts; the next Open would also delete this.
	if err := os.RemoveAll(l.sub); err != nil {
		l.log.Warn("the replaced log stays", "op", "raft log", "err", err)
	}
	return nil
}
