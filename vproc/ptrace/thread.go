package ptrace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

const (
	// firstPause and maxPause are between two looks at a thread that is to stop.
	firstPause = 20 * time.Microsecond
	maxPause   = 2 * time.Millisecond
	// stopTime is how long a thread has to stop after its call was answered, and
	// execTime to execute: signal handlers may run before.
	stopTime = 5 * time.Second
	execTime = 10 * time.Second
)

var (
	// errGone tells that the thread has ended, or makes another call.
	errGone = errors.New("the caller is gone")
	// errLet tells that the thread was let go before the end of its call.
	errLet = errors.New("the caller is stopped")
)

// thread is one that waits in rexecve, or did. Its methods are for one locked thread of
// this process, as the kernel knows a tracer by that.
type thread struct {
	tid, pid int
	nr       uint64 // of rexecve
	// ends is called before the thread is let go: it may call again at once.
	ends func()
}

// seize attaches to the thread, which goes on waiting.
func (t *thread) seize() error {
	err := unix.PtraceSeize(t.tid)
	if errors.Is(err, unix.EPERM) && t.traced() {
		err = unix.EBUSY
	}
	if err != nil {
		return fmt.Errorf("seize thread %d: %w", t.tid, err)
	}
	return nil
}

// traced tells whether somebody traces the thread (proc_pid_status(5)).
func (t *thread) traced() bool {
	b, err := os.ReadFile(t.file("status"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "TracerPid:"); ok {
			return strings.TrimSpace(v) != "0"
		}
	}
	return false
}

func (t *thread) file(name string) string { return "/proc/" + strconv.Itoa(t.tid) + "/" + name }

// waitsIn tells by a nil error that the thread is the one of r: it waits in a call of
// this number with these arguments. ENOSYS: it has not called as a 64-bit program does.
func (t *thread) waitsIn(r *call.Request) error {
	f, err := t.syscall()
	if err != nil {
		return err
	}
	if len(f) != 9 || f[0] != strconv.FormatUint(t.nr, 10) {
		return errGone
	}
	for i, want := range r.Args {
		if v, err := strconv.ParseUint(f[1+i], 0, 64); err != nil || v != want {
			return errGone
		}
	}
	pc, err := strconv.ParseUint(f[8], 0, 64)
	if err != nil {
		return errGone
	}
	mem, err := os.Open(t.file("mem")) // text that cannot be read otherwise too
	if err != nil {
		return errGone
	}
	defer func() { _ = mem.Close() }()
	var code [callSize]byte
	if _, err := mem.ReadAt(code[:], int64(pc-callSize)); err != nil && !errors.Is(err, io.EOF) || string(code[:]) != callInstruction {
		return unix.ENOSYS
	}
	return nil
}

// syscall is what proc_pid_syscall(5) tells of the thread. A caller that was caught a
// moment ago may still be on the way to its sleep.
func (t *thread) syscall() ([]string, error) {
	const tries = 100
	for range tries {
		b, err := os.ReadFile(t.file("syscall"))
		if err != nil {
			break
		}
		if f := strings.Fields(string(b)); len(f) > 0 && f[0] != "running" {
			return f, nil
		}
		time.Sleep(maxPause)
	}
	return nil, errGone
}

// wait waits until the thread stops, or ends (errGone).
func (t *thread) wait(ctx context.Context) (unix.WaitStatus, error) {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		// A thread that executes a program takes the number of its process.
		for _, n := range [...]int{t.tid, t.pid} {
			var ws unix.WaitStatus
			got, err := unix.Wait4(n, &ws, unix.WNOHANG|unix.WALL|unix.WNOTHREAD, nil)
			switch {
			case err == nil && got == n:
				t.tid = n
				if !ws.Stopped() {
					return ws, errGone
				}
				return ws, nil
			case err == nil || errors.Is(err, unix.EINTR): // it is there
			case n == t.pid:
				return 0, errGone
			default:
				continue
			}
			break
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("thread %d does not stop: %w", t.tid, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// event is the PTRACE_EVENT of a stop, or 0.
func event(ws unix.WaitStatus) int { return int(ws) >> 16 }

// syscallStop is the signal of a stop by a system call, with PTRACE_O_TRACESYSGOOD.
const syscallStop = unix.SIGTRAP | 0x80

// awaitReturn waits until the thread stops on its way out of r, and returns its
// registers.
func (t *thread) awaitReturn(ctx context.Context, r *call.Request) (*registers, error) {
	ctx, cancel := context.WithTimeout(ctx, stopTime)
	defer cancel()
	if _, err := t.wait(ctx); err != nil {
		return nil, err
	}
	if err := unix.PtraceSetOptions(t.tid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACEEXEC); err != nil {
		return nil, fmt.Errorf("options: %w", err)
	}
	var g registers
	if err := g.load(t.tid); err != nil {
		return nil, fmt.Errorf("registers: %w", err)
	}
	if !g.returnsFrom(r, t.nr) {
		return nil, errGone
	}
	return &g, nil
}

// make has the thread, which is stopped at the end of a call with the registers at,
// make another one, and waits for its result; executed tells that it is another program
// now. Signals that come meanwhile are the thread's. After errLet it makes the call by
// itself.
func (t *thread) make(ctx context.Context, at *registers, nr uint64, args [5]uint64) (result int64, executed bool, err error) {
	if err := at.calling(nr, args).store(t.tid); err != nil {
		return 0, false, fmt.Errorf("registers: %w", err)
	}
	inside := false
	for sig := 0; ; {
		if err := unix.PtraceSyscall(t.tid, sig); err != nil {
			return 0, false, fmt.Errorf("continue: %w", err)
		}
		sig = 0
		ws, err := t.wait(ctx)
		if err != nil {
			return 0, false, err
		}
		switch {
		case event(ws) == unix.PTRACE_EVENT_EXEC:
			return 0, true, nil
		case event(ws) == unix.PTRACE_EVENT_STOP && ws.StopSignal() != unix.SIGTRAP: // by a signal
			return 0, false, errLet
		case event(ws) != 0:
		case ws.StopSignal() != syscallStop:
			sig = int(ws.StopSignal())
		default:
			var g registers
			if err := g.load(t.tid); err != nil {
				return 0, false, fmt.Errorf("registers: %w", err)
			}
			if !inside {
				inside = g.entered(nr, at)
				continue
			}
			if inside = false; restarts(g.result()) {
				continue
			}
			return g.result(), false, nil
		}
	}
}

// restarts tells whether the kernel makes a call again after a signal: ERESTARTSYS to
// ERESTART_RESTARTBLOCK of include/linux/errno.h.
func restarts(result int64) bool { return result >= -516 && result <= -512 }

// become has the thread, which is stopped at the end of rexecve with the registers at,
// execute a program by the call nr; if that fails it closes fd, unless that is negative,
// and returns the error.
func (t *thread) become(ctx context.Context, at *registers, nr uint64, args [5]uint64, fd int64) error {
	ctx, cancel := context.WithTimeout(ctx, execTime)
	defer cancel()
	result, executed, err := t.make(ctx, at, nr, args)
	if err == nil && !executed {
		if fd >= 0 {
			_, _, err = t.make(ctx, at, unix.SYS_CLOSE, [5]uint64{uint64(fd)})
		}
		if err == nil {
			err = at.returning(result).store(t.tid)
		}
	}
	if err != nil && !errors.Is(err, errLet) {
		return err
	}
	return t.detach()
}

// detach lets the stopped thread go.
func (t *thread) detach() error {
	t.ends()
	if err := unix.PtraceDetach(t.tid); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return nil
}
