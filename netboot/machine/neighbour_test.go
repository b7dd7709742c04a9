package machine

import (
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel's neighbour table, in a network namespace of the test's own.
func TestKernelNeighbours(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: a network namespace cannot be made")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}
		if err := netlink.LinkAdd(veth); err != nil {
			t.Errorf("veth: %v", err)
			return
		}
		link, err := netlink.LinkByName("a")
		if err != nil {
			t.Error(err)
			return
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Error(err)
			return
		}
		for addr, state := range map[string]int{"10.0.0.2": netlink.NUD_PERMANENT, "10.0.0.3": netlink.NUD_FAILED, "fd00::2": netlink.NUD_PERMANENT} {
			m := mac(2)
			n := &netlink.Neigh{LinkIndex: link.Attrs().Index, State: state, IP: net.ParseIP(addr), HardwareAddr: m[:]}
			if err := netlink.NeighSet(n); err != nil {
				t.Errorf("neighbour %s: %v", addr, err)
			}
		}
		for addr, want := range map[string]bool{"10.0.0.2": true, "::ffff:10.0.0.2": true, "10.0.0.3": false, "10.0.0.4": false, "fd00::2": true} {
			got, known, err := KernelNeighbours{}.Neighbour(ip(addr))
			if err != nil || known != want || known && got != mac(2) {
				t.Errorf("%s: %v, %v, %v", addr, got, known, err)
			}
		}
	}()
	<-done
}
