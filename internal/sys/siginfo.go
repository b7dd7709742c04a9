package sys

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SiginfoSize is the size of siginfo_t in bytes.
const SiginfoSize = 128

// CodeKernel is the si_code of a signal from the kernel itself, as that of a
// terminal: SI_KERNEL of sigaction(2).
const CodeKernel = 0x80

// Siginfo is who sent a signal, and with which value; see sigaction(2). PID, UID and
// Value mean something if Code is not above 0.
type Siginfo struct {
	Signal unix.Signal
	Code   int32
	PID    int32
	UID    uint32
	Value  uint64
}

// Append appends a siginfo_t.
func (s *Siginfo) Append(b []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, SiginfoSize)...)
	p := b[at:]
	binary.NativeEndian.PutUint32(p, uint32(s.Signal))
	binary.NativeEndian.PutUint32(p[8:], uint32(s.Code))
	binary.NativeEndian.PutUint32(p[16:], uint32(s.PID))
	binary.NativeEndian.PutUint32(p[20:], s.UID)
	binary.NativeEndian.PutUint64(p[24:], s.Value)
	return b
}

// DecodeSiginfo reads a siginfo_t, the SiginfoSize bytes of b.
func DecodeSiginfo(b []byte) Siginfo {
	return Siginfo{
		Signal: unix.Signal(binary.NativeEndian.Uint32(b)), Code: int32(binary.NativeEndian.Uint32(b[8:])),
		PID: int32(binary.NativeEndian.Uint32(b[16:])), UID: binary.NativeEndian.Uint32(b[20:]), Value: binary.NativeEndian.Uint64(b[24:]),
	}
}

// siginfoHandler is the handler of the signals of NotifyInfo, for the kernel only. siginfo_*.s.
func siginfoHandler() //nolint:unused // in assembly

// faultHandler is the handler of the signals of faults: those that nobody sent (si_code above
// 0) are the runtime's.
func faultHandler() //nolint:unused // in assembly

// siginfoHandlerAt and faultHandlerAt are where the handlers are, for the kernel.
func siginfoHandlerAt() uint64
func faultHandlerAt() uint64

// setFaultHandler tells faultHandler where the runtime's handler is.
func setFaultHandler(handler uintptr)

// setSiginfoPipe tells the handler where to write.
func setSiginfoPipe(fd uintptr)

// NotifyInfo has each of sigs that this process receives from now on written to w as
// a siginfo_t, also those that it ignored: os/signal tells nothing but the number. Of the signals
// of faults (SIGSEGV …) that holds for those that somebody sent; a fault is one
// as before. A pipe that is full loses signals; w must not block, and stays open
// as long as this process lives. It is for the main program, once.
func NotifyInfo(w *os.File, sigs []unix.Signal) error {
	raw, err := w.SyscallConn()
	if err != nil {
		return err
	}
	if err := raw.Control(setSiginfoPipe); err != nil {
		return err
	}
	ours, err := action(unix.SIGURG) // the runtime has a handler for this one, with all that a handler needs
	if err != nil {
		return err
	}
	faults := ours
	setFaultHandler(uintptr(ours[0]))
	ours[0], faults[0] = siginfoHandlerAt(), faultHandlerAt()
	for _, sig := range sigs {
		act := ours
		switch sig {
		case unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS:
			act = faults
		}
		if _, err := SetAction(sig, act); err != nil {
			return fmt.Errorf("handler of %s: %w", unix.SignalName(sig), err)
		}
	}
	return nil
}

// sigIgnore is SIG_IGN.
const sigIgnore = 1

// action is what sig does now.
func action(sig unix.Signal) (act Action, err error) {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0)
	if e != 0 {
		return act, e
	}
	return act, nil
}

// SendInfo sends a signal with this siginfo_t to a process (pidfd_send_signal(2)).
// The kernel takes those only whose Code is below 0 and not SI_TKILL.
func SendInfo(pidfd int, s *Siginfo) error {
	info := s.Append(nil)
	_, _, e := unix.Syscall6(unix.SYS_PIDFD_SEND_SIGNAL, uintptr(pidfd), uintptr(s.Signal), uintptr(unsafe.Pointer(&info[0])), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
