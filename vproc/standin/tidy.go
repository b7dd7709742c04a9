package standin

import (
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// tidyPause is the least time between two looks at who needs stand-ins.
const tidyPause = time.Second

// look has tidy look soon.
func (m *Maker) look() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// tidy ends stand-ins that nobody needs any more, until Close.
func (m *Maker) tidy() {
	for {
		select {
		case <-m.wake:
		case <-m.stop:
			return
		}
		m.mu.Lock()
		m.endUnneeded()
		m.mu.Unlock()
		select {
		case <-time.After(tidyPause):
		case <-m.stop:
			return
		}
	}
}

// endUnneeded ends the stand-ins, without the root, of which no process that is none has the number
// as parent, group or session.
func (m *Maker) endUnneeded() {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	m.held.mu.Lock()
	for _, pid := range m.held.released {
		delete(m.placed, pid)
	}
	m.held.released = nil
	m.held.mu.Unlock()
	needed := map[int32]bool{m.root: true}
	for _, parent := range m.placed { // it has to tell of the end
		needed[parent] = true
	}
	for _, e := range list {
		pid, err := strconv.ParseInt(e.Name(), 10, 32)
		if err != nil || m.all[int32(pid)] != nil {
			continue
		}
		r, ok := proc.RelativesOf(int32(pid))
		if !ok || r.State == 'Z' { // who is to tell of it is among those of placed
			continue
		}
		needed[r.Parent], needed[r.Group], needed[r.Session] = true, true, true
	}
	for pid, s := range m.all {
		if !needed[pid] {
			m.end(s)
		}
	}
}

// endEarlier ends the stand-ins that a daemon of before left, and waits until they
// hold no number any more.
func endEarlier(log *slog.Logger) {
	const patience = 2 * time.Second
	end := time.Now().Add(patience)
	for {
		left := standIns()
		for _, pid := range left {
			endStandIn(pid)
		}
		switch {
		case len(left) == 0:
			return
		case time.Now().After(end):
			log.Warn("stand-ins of an earlier daemon do not end", "op", "standin", "pids", left)
			return
		}
		time.Sleep(time.Millisecond) // their parents, stand-ins too, are on the way
	}
}

// standIns finds all stand-ins of this node.
func standIns() (pids []int) {
	list, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range list {
		if pid, err := strconv.Atoi(e.Name()); err == nil && isStandIn(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isStandIn reports whether a process runs the program of stand-ins. Its user is not
// asked: one that was about to become a user's process may be left too.
func isStandIn(pid int) bool {
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	return err == nil && strings.HasPrefix(exe, "/memfd:"+proc.StandIn+" ")
}

func endStandIn(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if isStandIn(pid) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// valueOf is the value of a variable in an environment, or "".
func valueOf(env []string, name string) string {
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}
