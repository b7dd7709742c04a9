package standin

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// sheet is a set of orders, and the memory that they point to.
type sheet struct {
	arena  sys.Arena
	orders []sys.Order
	used   int  // bytes of the memory
	full   bool // it did not fit
}

func (m *Maker) sheet() *sheet { return &sheet{arena: m.arena} }

// put copies b to the memory and returns where stand-ins see it.
func (s *sheet) put(b []byte) uint64 {
	at := sys.ArenaData + s.used
	if at+len(b)+8 > sys.ArenaSize {
		s.full = true
		return 0
	}
	copy(s.arena[at:], b)
	s.used += (len(b) + 7) &^ 7
	return sys.ArenaAddr + uint64(at)
}

// text puts a string as C has it.
func (s *sheet) text(v string) uint64 {
	b := make([]byte, len(v)+1)
	copy(b, v)
	return s.put(b)
}

// texts puts a list of strings as execve(2) takes it.
func (s *sheet) texts(list []string) uint64 {
	b := make([]byte, 0, 8*(len(list)+1))
	for _, v := range list {
		b = binary.NativeEndian.AppendUint64(b, s.text(v))
	}
	return s.put(binary.NativeEndian.AppendUint64(b, 0))
}

// order adds a system call and returns its number.
func (s *sheet) order(flags uint64, nr uintptr, args ...uint64) int {
	o := sys.Order{Nr: nr, Flags: flags}
	copy(o.Args[:], args)
	return s.add(o)
}

func (s *sheet) add(o sys.Order) int {
	if len(s.orders) == sys.MaxOrders {
		s.full = true
		return 0
	}
	s.orders = append(s.orders, o)
	return len(s.orders) - 1
}

// give has a stand-in begin with orders, whose number it returns.
func (m *Maker) give(s *standin, sh *sheet) (uint32, error) {
	if sh.full {
		return 0, unplaceable("it does not fit into %d bytes", sys.ArenaSize)
	}
	n := m.arena.Give(int(s.pid), sh.orders)
	if err := unix.PidfdSendSignal(s.pidfd, unix.SIGUSR1, nil, 0); err != nil {
		m.drop(s)
		return 0, unplaceable("stand-in %d: %w", s.pid, err)
	}
	return n, nil
}

// carryOut has a stand-in carry out orders, and waits for it. One that does not is
// ended.
func (m *Maker) carryOut(s *standin, sh *sheet) error {
	n, err := m.give(s, sh)
	if err != nil {
		return err
	}
	const look = 50 * time.Millisecond
	for end := time.Now().Add(orderTime); ; {
		if err = m.arena.Await(n, look); err == nil {
			return nil
		}
		if !alive(s.pidfd) || time.Now().After(end) {
			m.end(s)
			return unplaceable("stand-in %d: %w", s.pid, err)
		}
	}
}

// awaitResult is the error of a call that made a process: the new one may have
// carried out the rest before the old one has told.
func (m *Maker) awaitResult(s *standin, order int) (unix.Errno, error) {
	for end := time.Now().Add(orderTime); ; time.Sleep(10 * time.Microsecond) {
		if _, e, ran := m.arena.Result(order); ran {
			return e, nil
		}
		if !alive(s.pidfd) || time.Now().After(end) {
			m.end(s)
			return 0, unplaceable("stand-in %d: %w", s.pid, unix.ETIMEDOUT)
		}
	}
}

// alive reports whether a process has not ended, a zombie counting as ended.
func alive(pidfd int) bool {
	p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err != nil || n == 0
}

func int32Bytes(v int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(v)) }

func (s *standin) String() string { return fmt.Sprintf("stand-in %d", s.pid) }
