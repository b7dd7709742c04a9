package rexec

import (
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
)

// remember notes that pid is a surrogate here: the process itself lives on node.
func (s *Server) remember(pid int32, node id.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away[pid] = node
	s.moved()
}

func (s *Server) forget(pid int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.away[pid]; ok {
		delete(s.away, pid)
		s.moved()
	}
}

// Where is where processes live whose PIDs do not tell it.
type Where struct {
	Away   map[int32]id.Node // surrogates of this node, and where their processes live
	Placed []int32           // commands that run here for surrogates of other nodes
}

// moved tells of a change; mu is held.
func (s *Server) moved() {
	if s.c.Moved == nil {
		return
	}
	w := Where{Away: maps.Clone(s.away)}
	for pid, p := range s.running {
		if p.group != 0 {
			w.Placed = append(w.Placed, pid)
		}
	}
	s.c.Moved(w)
}

// LivesOn is where the process lives of which this node has the surrogate pid.
func (s *Server) LivesOn(pid int32) (node id.Node, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	node, ok = s.away[pid]
	return node, ok
}

// Surrogates is the surrogates of this node.
func (s *Server) Surrogates() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]int, 0, len(s.away))
	for pid := range s.away {
		list = append(list, int(pid))
	}
	return list
}

// Placed reports whether pid is a command that runs here for its surrogate elsewhere.
func (s *Server) Placed(pid int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.running[pid]
	return p != nil && p.group != 0
}

// awaitEnd waits until the process pid has ended, and reports whether it has before
// done was closed.
func awaitEnd(pid int32, done <-chan struct{}) bool {
	fd, err := unix.PidfdOpen(int(pid), unix.PIDFD_NONBLOCK)
	if err != nil {
		return err == unix.ESRCH
	}
	f := os.NewFile(uintptr(fd), "pidfd") // non-blocking: the poller waits for it
	ended := make(chan bool, 1)
	go func() {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Read(func(fd uintptr) bool {
				return unix.PidfdSendSignal(int(fd), 0, nil, 0) == unix.ESRCH || readable(fd)
			})
		}
		ended <- err == nil
	}()
	select {
	case <-done:
		_ = f.Close() // which ends the read
		<-ended
		return false
	case is := <-ended:
		_ = f.Close()
		return is
	}
}

// readable reports whether a pidfd polls as ended, as that of a zombie does.
func readable(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1
}
