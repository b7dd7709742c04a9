package netconf

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const inside = "NETCONF_TEST_INSIDE"

// ownNetwork runs the calling test once more, in a process with a network
// namespace of its own, and reports whether this is that process. The other one
// does nothing else.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is of the thread
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	t.Logf("in its own network:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.Skip("the reason is above")
	}
	return false
}

// elsewhere is a second network namespace; do runs in it, and sockets that it
// opens stay there.
type elsewhere struct {
	ns   netns.NsHandle
	jobs chan func()
}

func newElsewhere(t *testing.T) *elsewhere {
	t.Helper()
	e := &elsewhere{jobs: make(chan func())}
	ready := make(chan error)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.New()
		e.ns = ns
		ready <- err
		for job := range e.jobs {
			job()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(e.jobs); <-done; e.ns.Close() })
	return e
}

func (e *elsewhere) do(f func()) {
	done := make(chan struct{})
	e.jobs <- func() { defer close(done); f() }
	<-done
}

// cable makes a pair of interfaces; the second one, up, is elsewhere if e is
// not nil.
func cable(t *testing.T, near, far string, e *elsewhere) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = near
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far}))
	l, err := netlink.LinkByName(far)
	must(t, err)
	if e == nil {
		must(t, netlink.LinkSetUp(l))
		return
	}
	must(t, netlink.LinkSetNsFd(l, int(e.ns)))
	e.do(func() {
		l, err := netlink.LinkByName(far)
		must(t, err)
		must(t, netlink.LinkSetUp(l))
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		<-tick.C
	}
}
