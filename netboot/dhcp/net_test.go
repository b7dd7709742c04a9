package dhcp

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wires is a switch (br0, in the namespace of the test) with machines on it, each a
// namespace of its own with an interface c0.
type wires struct {
	machines []int // processes that hold the namespaces
}

// newWires puts the test into a network namespace with br0, 10.77.0.1/24, and n
// machines with the addresses mac(0), mac(1)... The thread ends with the test.
func newWires(t testing.TB, n int) *wires {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	w := &wires{}
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "br0", "address", mac(0xff).String(), "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
	ip(t, "addr", "add", "10.77.0.1/24", "dev", "br0")
	ip(t, "link", "set", "br0", "up")
	for i := range n {
		holder := exec.Command("sleep", "600")
		holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = holder.Process.Kill()
			_ = holder.Wait()
		})
		w.machines = append(w.machines, holder.Process.Pid)
		port := "p" + strconv.Itoa(i)
		ip(t, "link", "add", port, "type", "veth", "peer", "name", "c0", "address", mac(i).String(), "netns", strconv.Itoa(holder.Process.Pid))
		ip(t, "link", "set", port, "master", "br0", "up")
		w.ip(t, i, "link", "set", "c0", "up")
		w.ip(t, i, "link", "set", "lo", "up")
	}
	return w
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// command is a command on a machine.
func (w *wires) command(ctx context.Context, i int, args ...string) *exec.Cmd {
	args = append([]string{"-t", strconv.Itoa(w.machines[i]), "-n", "--"}, args...)
	c := exec.CommandContext(ctx, "nsenter", args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return c
}

func (w *wires) ip(t testing.TB, i int, args ...string) {
	t.Helper()
	if out, err := w.command(t.Context(), i, append([]string{"ip"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("machine %d: ip %v: %v: %s", i, args, err, out)
	}
}

// on runs f on a machine: sockets that it opens are there.
func (w *wires) on(t testing.TB, i int, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", w.machines[i]))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatalf("machine %d: %v", i, err)
	}
}

// need skips the test without a program.
func need(t testing.TB, program string) string {
	t.Helper()
	for _, dir := range filepath.SplitList(os.Getenv("PATH") + ":/usr/sbin:/sbin") {
		if info, err := os.Stat(filepath.Join(dir, program)); err == nil && info.Mode()&0o111 != 0 {
			return filepath.Join(dir, program)
		}
	}
	t.Skipf("no %s on this machine", program)
	return ""
}

// events collects events.
type events struct {
	mu  sync.Mutex
	all []Event
}

func (e *events) add(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) has(match func(Event) bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.all {
		if match(event) {
			return true
		}
	}
	return false
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// start serves on br0 until the returned function is called.
func start(t testing.TB, cfg Config, sockets *Sockets) (stop func()) {
	t.Helper()
	if sockets == nil {
		s, err := Listen(t.Context(), cfg.Interface)
		if err != nil {
			t.Fatal(err)
		}
		sockets = &s
	}
	s, err := New(t.Context(), cfg, *sockets)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// netConfig is testConfig on br0, with the machine 0 known and 1 unknown.
func netConfig(report func(Event)) (Config, *memory) {
	store := newMemory()
	cfg := testConfig(map[MAC]Machine{mac(0): {State: Boot, Addr: ip4("10.77.0.50"), Hostname: "node0"}, mac(2): {State: Boot}})
	cfg.Interface, cfg.Store, cfg.Report = "br0", store, report
	return cfg, store
}
