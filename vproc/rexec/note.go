package rexec

import (
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// note records an attached command: a symbolic link named by its PID to the
// inode number of its pidfd, one system call to make.
func (s *Server) note(p *process) {
	ino, err := p.inode()
	if err == nil {
		path := s.notePath(p.pid)
		_ = os.Remove(path) // of a command whose end was not reported
		err = os.Symlink(strconv.FormatUint(ino, 10), path)
	}
	if err != nil {
		s.log.Warn("a command is not noted: it would survive a crash of this daemon", "op", "rexec", "pid", p.pid, "err", err)
	}
}

func (s *Server) unnote(pid int32) { _ = os.Remove(s.notePath(pid)) }

func (s *Server) notePath(pid int32) string { return filepath.Join(s.notes, strconv.Itoa(int(pid))) }

// hangUpOrphans hangs up the commands that are noted.
func (s *Server) hangUpOrphans() {
	entries, err := os.ReadDir(s.notes)
	if err != nil {
		s.log.Error("commands of an earlier daemon", "op", "rexec", "err", err)
		return
	}
	for _, e := range entries {
		pid, err := strconv.ParseInt(e.Name(), 10, 32)
		if err != nil {
			continue
		}
		if p := orphan(int32(pid), filepath.Join(s.notes, e.Name())); p != nil {
			s.log.Info("hanging up a command of an earlier daemon", "op", "rexec", "pid", pid)
			s.hang.add(p)
		}
		s.unnote(int32(pid))
	}
}

// orphan opens the noted process; nil if it has ended.
func orphan(pid int32, note string) *process {
	want, err := os.Readlink(note)
	if err != nil {
		return nil
	}
	fd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		return nil
	}
	p := newProcess(pid, os.NewFile(uintptr(fd), "pidfd"))
	if ino, err := p.inode(); err != nil || strconv.FormatUint(ino, 10) != want {
		_ = p.pidfd.Close()
		return nil
	}
	return p
}
