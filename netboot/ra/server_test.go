package ra

import (
	"context"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// enterNamespace puts the test into a network namespace of its own. The thread
// ends with the test.
func enterNamespace(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// A host on the other end of a cable asks and gets the empty advertisement, with
// hop limit 255; and this machine has not become a router.
func TestServer(t *testing.T) {
	enterNamespace(t)
	ip(t, "link", "add", "s0", "type", "veth", "peer", "name", "c0")
	for _, name := range []string{"s0", "c0"} {
		// Without address detection the link-local address can be used at once.
		ip(t, "link", "set", name, "addrgenmode", "eui64")
		// /proc/sys/net shows the namespace of the thread that opens a file.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte("0"), 0); err != nil {
			t.Skipf("no IPv6: %v", err)
		}
		ip(t, "link", "set", name, "up")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := Listen(ctx, "s0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := Listen(ctx, "c0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	served := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	defer stop()
	go func() { served <- s.Serve(serving, func(err error) { t.Log(err) }) }()

	all := &net.IPAddr{IP: net.IPv6linklocalallrouters, Zone: "c0"}
	buf := make([]byte, 1500)
	answered := false
	for !answered {
		if ctx.Err() != nil {
			t.Fatal("no advertisement")
		}
		ask := []byte{typeSolicitation, 0, 0, 0, 0, 0, 0, 0}
		if _, err := c.v6.WriteTo(ask, &ipv6.ControlMessage{HopLimit: 255}, all); err != nil {
			t.Logf("ask: %v", err) // until the link is up
		}
		if err := c.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, cm, src, err := c.v6.ReadFrom(buf)
		if err != nil || buf[0] != typeAdvertisement {
			continue
		}
		from, _ := source(src)
		a, err := ParseAdvertisement(Packet{From: from, HopLimit: cm.HopLimit, Bytes: buf[:n]})
		if err != nil || a.Offers {
			t.Fatalf("advertisement %+v, %v", a, err)
		}
		answered = true
	}
	if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/s0/forwarding"); err == nil && string(b) != "0\n" {
		t.Errorf("forwarding is %q", b)
	}
	stop()
	if err := <-served; err != nil {
		t.Fatalf("Serve: %v", err)
	}
}

func TestListenErrors(t *testing.T) {
	enterNamespace(t)
	for _, name := range []string{"nosuch", "lo"} {
		if s, err := Listen(t.Context(), name); err == nil {
			s.Close()
			t.Errorf("it listens on %s", name)
		}
	}
}
