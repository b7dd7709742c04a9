package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	pb "go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

const (
	buildDir    = "new.tmp"
	subPrefix   = "r-"
	logPrefix   = "log-"
	snapPrefix  = "snap-"
	reserveFile = "reserve"

	// reserveSize is what is kept to write a snapshot when the disk is full.
	reserveSize = 1 << 20
)

func subPath(dir string, recovery uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%016x", subPrefix, recovery))
}

// numbered lists the files PREFIX-NUMBER of a directory by ascending number.
func numbered(dir, prefix string) ([]uint64, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []uint64
	for _, e := range list {
		hex, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || len(hex) != 16 {
			continue
		}
		if n, err := strconv.ParseUint(hex, 16, 64); err == nil && fmt.Sprintf("%016x", n) == hex {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Open opens the log in dir, of which the fields of want that are not zero must
// be true. If there is none, errors.Is(err, fs.ErrNotExist); if another process
// uses it, errors.Is(err, unix.EBUSY). A *DamagedError says that it must not be
// used. What it does about traces of a crash goes to logger, which may be nil.
func Open(dir string, want Identity, logger *slog.Logger) (*Log, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("raft log: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	l, err := openLocked(dir, lock, want, logger, realDisk())
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return l, nil
}

// openLocked opens a log whose lock is held; the lock stays the caller's if it
// fails.
func openLocked(dir string, lock *os.File, want Identity, logger *slog.Logger, d disk) (*Log, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	subs, err := numbered(dir, subPrefix)
	if err != nil {
		return nil, fmt.Errorf("raft log: %w", err)
	}
	if len(subs) == 0 {
		return nil, fmt.Errorf("raft log: no log in %s: %w", dir, fs.ErrNotExist)
	}
	sub := subPath(dir, subs[len(subs)-1])
	l := &Log{dir: dir, sub: sub, log: logger, disk: d, lock: lock}
	if l.id, err = readIdentity(sub); err != nil {
		return nil, err
	}
	path := filepath.Join(sub, identityFile)
	if l.id.Recovery != subs[len(subs)-1] {
		return nil, damaged(path, -1, nil, "it is in the wrong directory")
	}
	if why := l.id.mismatch(want); why != "" {
		return nil, damaged(path, -1, nil, "the log %s", why)
	}
	if err := l.read(); err != nil {
		if n := len(l.segments); n > 0 && l.segments[n-1].file != nil {
			_ = l.segments[n-1].file.Close()
		}
		return nil, err
	}
	l.clean(subs[:len(subs)-1])
	l.keepReserve()
	return l, nil
}

// read reads segments and snapshots.
func (l *Log) read() error {
	var p replay
	torn, err := l.readSegments(&p)
	if err != nil {
		return err
	}
	mem, lost, err := p.finish(func(m mark) (*pb.Snapshot, error) { return readSnapshot(l.sub, l.id, m) })
	if err != nil {
		var d *DamagedError
		if errors.As(err, &d) {
			return err
		}
		return damaged(l.active().path, -1, err, "the records contradict each other")
	}
	if lost != nil {
		l.log.Warn("the newest snapshot is damaged; the one before it and the log are used instead", "op", "raft log", "err", lost)
	}
	if torn != nil {
		// A process that died in the middle of a write, or a power cut.
		l.log.Info("removed an unfinished write from the end of the log", "op", "raft log",
			"file", torn.path, "offset", int64(torn.at.block)*blockSize)
		if err := torn.clean(l.disk); err != nil {
			return fmt.Errorf("raft log %s: removing an unfinished write: %w", l.dir, err)
		}
	}
	l.mem, l.marks, l.state, l.durable = mem, p.marks, p.state, p.state
	return nil
}

// readSegments reads all segments in order and returns the last one if it has
// an unfinished group.
func (l *Log) readSegments(p *replay) (torn *scan, err error) {
	seqs, err := numbered(l.sub, logPrefix)
	if err != nil {
		return nil, damaged(filepath.Join(l.sub, logPrefix), -1, err, "cannot be read")
	}
	if len(seqs) == 0 {
		return nil, damaged(segmentPath(l.sub, 1), -1, nil, "all segments of the log are missing")
	}
	var last uint64
	for i, seq := range seqs {
		path := segmentPath(l.sub, seq)
		if i > 0 && seq != seqs[i-1]+1 {
			return nil, damaged(segmentPath(l.sub, seqs[i-1]+1), -1, nil, "this segment is missing")
		}
		s, err := l.readSegment(path, p, &last)
		if err != nil {
			return nil, err
		}
		if s.seq != seq {
			_ = s.file.Close()
			return nil, damaged(path, 0, nil, "it is segment %d under a wrong name", s.seq)
		}
		if i > 0 {
			before := l.segments[i-1]
			if s.header.at.group != before.at.group || s.header.at.chain != before.at.chain {
				_ = s.file.Close()
				return nil, damaged(path, 0, nil, "it does not continue segment %d", before.seq)
			}
			_ = before.file.Close()
			before.file = nil
		}
		s.last = last
		seg := s.segment
		l.segments = append(l.segments, &seg)
		if s.torn {
			torn = s
		}
		switch isLast := i == len(seqs)-1; {
		case isLast && s.ended:
			return nil, damaged(segmentPath(l.sub, seq+1), -1, nil, "this segment is missing")
		case !isLast && !s.ended:
			// The next one was made, and then came the crash, before the end
			// here could be written and anything be put there.
			if i != len(seqs)-2 || !l.unused(segmentPath(l.sub, seq+1)) {
				return nil, damaged(path, int64(s.at.block)*blockSize, nil, "its end is missing")
			}
			if err := os.Remove(segmentPath(l.sub, seq+1)); err != nil {
				return nil, fmt.Errorf("raft log %s: %w", l.dir, err)
			}
			return torn, syncDir(l.sub)
		}
	}
	return torn, nil
}

// readSegment reads one segment; last is the highest index seen.
func (l *Log) readSegment(path string, p *replay, last *uint64) (*scan, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, damaged(path, -1, err, "cannot be read")
	}
	// What a killed process wrote may be in the page cache only, and what a
	// failed sync left there may never get to the disk: write it, then read
	// what the disk has.
	if err := l.disk.fdatasync(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("raft log %s: %w", l.dir, err)
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	p.beginSegment()
	s, err := scanSegment(path, f, func(r record) error {
		err := p.add(r)
		*last = max(*last, p.next-1)
		return err
	})
	switch {
	case err != nil:
	case s.header.id != l.id:
		err = damaged(path, 0, nil, "it belongs to %s, the log to %s", s.header.id, l.id)
	case !p.begun:
		err = damaged(path, blockSize, nil, "its first group is missing")
	default:
		return s, nil
	}
	_ = f.Close()
	return nil, err
}

// unused reports whether a segment is whole and has only its first group.
func (l *Log) unused(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	s, err := scanSegment(path, f, func(record) error { return nil })
	return err == nil && s.header.id == l.id && s.at.group == s.header.at.group+1 && !s.torn && !s.ended
}

// clean deletes what does not count: logs before a Replace, files that were not
// finished, snapshots that the log does not name. What stays costs space only.
func (l *Log) clean(oldSubs []uint64) {
	drop := []string{filepath.Join(l.dir, buildDir)}
	for _, n := range oldSubs {
		drop = append(drop, subPath(l.dir, n))
	}
	tmp, _ := filepath.Glob(filepath.Join(l.sub, "*.tmp"))
	drop = append(drop, tmp...)
	snaps, _ := numbered(l.sub, snapPrefix)
	for _, n := range snaps {
		if !slices.ContainsFunc(l.marks, func(m mark) bool { return m.index == n }) {
			drop = append(drop, snapshotPath(l.sub, n))
		}
	}
	for _, path := range drop {
		if err := os.RemoveAll(path); err != nil {
			l.log.Warn("cannot remove what is left of an earlier run", "op", "raft log", "err", err)
		}
	}
}

// keepReserve makes the reserve if it is not there and there is space.
func (l *Log) keepReserve() {
	path := filepath.Join(l.sub, reserveFile)
	if info, err := os.Stat(path); err == nil && info.Size() == l.disk.reserve {
		return
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = errors.Join(l.disk.allocate(f, l.disk.reserve), f.Close())
	}
	if err != nil {
		_ = os.Remove(path)
		l.log.Warn("no space for the reserve", "op", "raft log", "err", l.writeError("reserve", err))
	}
}
