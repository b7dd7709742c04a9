package vm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	// exitTime is how long QEMU may take to be gone after SIGKILL.
	exitTime = 30 * time.Second
	// messageSize is how many bytes of what QEMU says are kept.
	messageSize = 8 << 10
)

// life is a machine from power-on to power-off.
type life struct {
	cmd     *exec.Cmd
	serial  net.Conn
	monitor *monitor
	plugs   []*plug
	said    tail // by QEMU, about itself

	mu     sync.Mutex
	killed bool

	wg   sync.WaitGroup // console and monitor
	done chan struct{}  // closed when all is over
	err  error          // how it ended
}

// start makes the connections of a machine and starts QEMU. The caller has
// entered the network; a life that started leaves it when it is over.
func (m *Machine) start(program string, fw firmware) (*life, error) {
	l := &life{done: make(chan struct{})}
	var given []*os.File // QEMU's ends
	pair := func(what string) (net.Conn, int, error) {
		ours, theirs, err := socketPair(what)
		if err != nil {
			return nil, 0, err
		}
		given = append(given, theirs)
		return ours, 2 + len(given), nil
	}
	defer func() {
		for _, f := range given {
			_ = f.Close()
		}
	}()
	var f files
	var err error
	if l.serial, f.serial, err = pair("console"); err != nil {
		return nil, err
	}
	conn, fd, err := pair("monitor")
	if err != nil {
		return nil, errors.Join(err, l.serial.Close())
	}
	l.monitor, f.monitor = newMonitor(conn), fd
	for i, s := range m.segments {
		conn, fd, err := pair(nicID(i))
		if err == nil {
			f.nics = append(f.nics, fd)
			var p *plug
			if p, err = s.plug(PortName(m.spec.Name, i), newStream(conn)); err == nil {
				l.plugs = append(l.plugs, p)
				continue
			}
		}
		return nil, errors.Join(err, l.disconnect())
	}
	l.cmd = exec.Command(program, m.spec.args(fw, m.file("vars"), f)...)
	l.cmd.ExtraFiles = given
	l.cmd.Stdout, l.cmd.Stderr = &l.said, &l.said
	l.cmd.WaitDelay = time.Second
	// A process group of its own, so that a ^C at the terminal is not for it.
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	m.console.setPower(true)
	started := make(chan error, 1)
	go l.run(m, started)
	if err := <-started; err != nil {
		<-l.done
		return nil, err
	}
	return l, nil
}

// run is the life: it starts QEMU, waits for its end and cleans up. The parent
// whose death kills QEMU is a thread, so it stays on its thread.
func (l *life) run(m *Machine, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(l.done)
	err := l.cmd.Start()
	if err != nil {
		m.console.setPower(false)
		started <- errors.Join(err, l.disconnect())
		return
	}
	l.wg.Go(func() { _, _ = io.Copy(m.console, l.serial) }) // ends with QEMU; the console never fails
	l.wg.Go(l.monitor.run)
	started <- nil

	l.err = l.cmd.Wait()
	l.wg.Wait()
	l.mu.Lock()
	if l.killed {
		l.err = nil
	}
	l.mu.Unlock()
	if said := l.said.String(); l.err != nil && said != "" {
		l.err = fmt.Errorf("%w: %s", l.err, said)
	}
	l.err = errors.Join(l.err, l.disconnect(), os.WriteFile(m.file("qemu"), []byte(l.said.String()), 0o600))
	m.net.leave()
	m.console.setPower(false)
}

// disconnect closes our ends.
func (l *life) disconnect() error {
	errs := []error{l.serial.Close(), l.monitor.conn.Close()}
	for _, p := range l.plugs {
		errs = append(errs, p.unplug())
	}
	return errors.Join(errs...)
}

// kill cuts the power and waits.
func (l *life) kill() error {
	l.mu.Lock()
	l.killed = true
	l.mu.Unlock()
	if err := l.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill QEMU: %w", err)
	}
	select {
	case <-l.done:
		return l.err
	case <-time.After(exitTime):
		return fmt.Errorf("QEMU (process %d) is not gone %v after SIGKILL", l.cmd.Process.Pid, exitTime)
	}
}

// on reports whether the life is not over.
func (l *life) on() bool {
	if l == nil {
		return false
	}
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// tail keeps the last messageSize bytes that are written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	t.b = t.b[max(0, len(t.b)-messageSize):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
