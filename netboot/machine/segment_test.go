package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ssi/internal/api"
)

// netNS is a network namespace of a test.
type netNS struct {
	t    *testing.T
	file *os.File
}

// newNetNS makes one; with that the test may do nothing to the host.
func newNetNS(t *testing.T) *netNS {
	t.Helper()
	n := &netNS{t: t}
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		errs <- func() (err error) {
			if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			n.file, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
			return err
		}()
	}()
	switch err := <-errs; {
	case errors.Is(err, unix.EPERM):
		t.Skipf("no network namespace can be made here: %v", err)
	case err != nil:
		t.Fatalf("network namespace: %v", err)
	}
	t.Cleanup(func() { _ = n.file.Close() })
	return n
}

// do runs f in the namespace.
func (n *netNS) do(f func() error) error {
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		errs <- err
	}()
	return <-errs
}

func (n *netNS) must(what string, f func() error) {
	n.t.Helper()
	if err := n.do(f); err != nil {
		n.t.Fatalf("%s: %v", what, err)
	}
}

// Neighbour is the kernel's table in the namespace.
func (n *netNS) Neighbour(a netip.Addr) (m MAC, known bool, err error) {
	err = n.do(func() (err error) { m, known, err = KernelNeighbours{}.Neighbour(a); return err })
	return m, known, err
}

// address gives an interface an address, and switches it on.
func address(name string, addrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, text := range addrs {
		addr, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// On a real segment: a machine boots and is admitted; another one that takes its
// address while it is off is told from it by its MAC.
func TestSegment(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: network namespaces cannot be made")
	}
	server, victim, attacker := newNetNS(t), newNetNS(t), newNetNS(t)
	server.must("bridge", func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}); err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br")
		if err != nil {
			return err
		}
		for i, far := range []*netNS{victim, attacker} {
			port := fmt.Sprintf("p%d", i)
			hw := mac(i + 1)
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0",
				PeerHardwareAddr: net.HardwareAddr(hw[:]), PeerNamespace: netlink.NsFd(far.file.Fd())}
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
			link, err := netlink.LinkByName(port)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(link, bridge); err != nil {
				return err
			}
			if err := address(port); err != nil {
				return err
			}
		}
		return address("br", "10.9.0.1/24")
	})
	victim.must("victim", func() error { return address("eth0", "10.9.0.2/24") })
	attacker.must("attacker", func() error { return address("eth0", "10.9.0.66/24") })

	w := newWorld(t)
	w.adm.neighbours = server
	w.run(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	var l net.Listener
	server.must("listen", func() (err error) { l, err = net.Listen("tcp", "10.9.0.1:0"); return err })
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler(t, w.adm)}} //nolint:gosec // a test
	s.Start()
	t.Cleanup(s.Close)

	ask := func(from *netNS, local string, body []byte) answer {
		t.Helper()
		dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}, FallbackDelay: -1}
			err = from.do(func() (err error) { conn, err = d.DialContext(ctx, network, addr); return err })
			return conn, err
		}
		client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
		_, reply, err := post(t.Context(), client, s.URL+PathAdmit, body)
		if err != nil {
			t.Fatal(err)
		}
		a, err := parseAnswer(reply)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	w.adm.Booted(mac(1), ip("10.9.0.2"))
	w.settled()
	thief := joinerOf(t, mac(1))
	if a := ask(attacker, "10.9.0.66", thief.body()); a.State != stateDenied {
		t.Errorf("the attacker, from its own address: %+v", a)
	}
	if a := ask(victim, "10.9.0.2", joinerOf(t, mac(1)).body()); a.State != stateAdmitted {
		t.Errorf("the machine: %+v", a)
	}
	if m, known, err := server.Neighbour(ip("10.9.0.2")); err != nil || !known || m != mac(1) {
		t.Errorf("the neighbour table: %v, %v, %v", m, known, err)
	}

	// The machine boots again, and is cut off before it asks.
	w.adm.Booted(mac(1), ip("10.9.0.2"))
	w.settled()
	victim.must("cut off", func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
	attacker.must("takes its address", func() error { return address("eth0", "10.9.0.2/24") })
	server.must("forget the neighbour", func() error { // as it does by itself in time
		link, err := netlink.LinkByName("br")
		if err != nil {
			return err
		}
		return netlink.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.ParseIP("10.9.0.2")})
	})
	if a := ask(attacker, "10.9.0.2", thief.body()); a.State != stateDenied || !strings.Contains(a.Why, "10.9.0.2 is used by 52:54:00:00:00:02") {
		t.Errorf("the attacker, from the machine's address: %+v", a)
	}
	if len(w.boot(mac(1)).Key) != 0 {
		t.Error("the attacker claimed the boot")
	}
	if !strings.Contains(w.reported(), "52:54:00:00:00:02 asked to be admitted as 52:54:00:00:00:01, with its address 10.9.0.2") {
		t.Errorf("reported: %s", w.reported())
	}
}
