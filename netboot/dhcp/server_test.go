package dhcp

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// udhcpc asks as the C library's busybox does and returns what it was given. It
// sets no BROADCAST flag, so the frames to a machine without address are seen too.
func udhcpc(t *testing.T, w *wires, i int, args ...string) map[string]string {
	t.Helper()
	busybox := need(t, "busybox")
	dir := t.TempDir()
	script, out := filepath.Join(dir, "script"), filepath.Join(dir, "out")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ $1 = bound ] && env >"+out+"\n[ $1 = bound ] && ip addr replace $ip/$mask dev $interface\nexit 0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	args = append([]string{busybox, "udhcpc", "-i", "c0", "-f", "-q", "-n", "-t", "8", "-T", "1", "-s", script}, args...)
	if text, err := w.command(ctx, i, args...).CombinedOutput(); err != nil {
		t.Fatalf("udhcpc: %v: %s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[k] = v
	}
	return env
}

func TestUdhcpc(t *testing.T) {
	w := newWires(t, 2)
	cfg, store := netConfig(nil)
	stop := start(t, cfg, nil)
	env := udhcpc(t, w, 0)
	for k, want := range map[string]string{"ip": "10.77.0.50", "mask": "24", "router": "10.77.0.254", "dns": "10.77.0.1 10.77.0.2", "hostname": "node0", "domain": "cluster.example", "lease": "3600", "serverid": "10.77.0.1"} {
		if env[k] != want {
			t.Errorf("%s is %q, want %q", k, env[k], want)
		}
	}
	if l, ok := store.get(ip4("10.77.0.50")); !ok || l.MAC != mac(0) {
		t.Errorf("the store has %+v", l)
	}
	guest := udhcpc(t, w, 1)
	if guest["ip"] != "10.77.0.200" || guest["lease"] != "300" {
		t.Errorf("an unknown machine got %q for %q s", guest["ip"], guest["lease"])
	}
	// The server dies; the next one has the leases.
	stop()
	start(t, cfg, nil)
	if again := udhcpc(t, w, 1, "-r", "10.77.0.203"); again["ip"] != "10.77.0.200" {
		t.Errorf("after a take-over the machine got %q, it had 10.77.0.200", again["ip"])
	}
}

// Another client's exchange, renewal and release.
func TestNclient4(t *testing.T) {
	w := newWires(t, 3)
	cfg, store := netConfig(nil)
	start(t, cfg, nil)
	w.on(t, 2, func() error {
		c, err := nclient4.New("c0", nclient4.WithTimeout(time.Second), nclient4.WithRetry(4))
		if err != nil {
			return err
		}
		defer c.Close()
		lease, err := c.Request(t.Context())
		if err != nil {
			return err
		}
		a := addrOf(lease.ACK.YourIPAddr)
		if a != ip4("10.77.0.10") {
			t.Errorf("it got %v", a)
		}
		first, _ := store.get(a)
		w.ip(t, 2, "addr", "add", a.String()+"/24", "dev", "c0")
		if lease, err = c.Renew(t.Context(), lease); err != nil {
			return err
		}
		if renewed, ok := store.get(a); !ok || !renewed.Expires.After(first.Expires) {
			t.Errorf("after the renewal the store has %+v, before %+v", renewed, first)
		}
		// The raw socket of the first client sends without a source address.
		own, err := nclient4.New("c0", nclient4.WithUnicast(&net.UDPAddr{IP: a.AsSlice(), Port: portClient}))
		if err != nil {
			return err
		}
		defer own.Close()
		if err := own.Release(lease); err != nil {
			return err
		}
		until(t, "release", func() bool { _, ok := store.get(a); return !ok })
		return nil
	})
}

// A lease that the store did not take is not given.
func TestStoreFails(t *testing.T) {
	w := newWires(t, 1)
	var seen events
	cfg, store := netConfig(seen.add)
	start(t, cfg, nil)
	store.setFail(errStore)
	ask := func() error {
		c, err := nclient4.New("c0", nclient4.WithTimeout(500*time.Millisecond), nclient4.WithRetry(2))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Request(t.Context())
		return err
	}
	w.on(t, 0, func() error {
		if err := ask(); err == nil {
			t.Error("an address was given without a store")
		}
		if !seen.has(func(e Event) bool { return e.Kind == StoreFailed }) {
			t.Error("nothing was reported")
		}
		store.setFail(nil)
		return ask()
	})
}

// dnsmasq serves 10.77.0.100 and up on a machine.
func dnsmasq(t *testing.T, w *wires, i int) {
	t.Helper()
	program := need(t, "dnsmasq")
	w.ip(t, i, "addr", "add", "10.77.0.9/24", "dev", "c0")
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	c := w.command(ctx, i, program, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=c0", "--bind-interfaces",
		"--dhcp-range=10.77.0.100,10.77.0.120,1h", "--dhcp-leasefile="+filepath.Join(dir, "leases"), "--pid-file=", "--user=root", "--no-ping", "--dhcp-authoritative")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = c.Wait()
	})
}

// collect sends a packet from machine i once a tenth of a second and gives each
// reply to f, until f says that it is enough.
func collect(t *testing.T, w *wires, i int, m message, f func(*dhcpv4.DHCPv4) bool) {
	t.Helper()
	w.on(t, i, func() error {
		ifi, err := net.InterfaceByName("c0")
		if err != nil {
			return err
		}
		c, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_IP, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		all := MAC{255, 255, 255, 255, 255, 255}
		ask := appendFrame(nil, all, m.mac, netip.AddrPortFrom(broadcast().Addr(), portServer), netip.AddrPortFrom(netip.IPv4Unspecified(), portClient), m.bytes())
		buf := make([]byte, 2000)
		deadline := time.Now().Add(20 * time.Second)
		for next := time.Now(); ; {
			if time.Now().After(deadline) {
				t.Fatal("not all replies within 20 s")
			}
			if time.Now().After(next) {
				next = time.Now().Add(100 * time.Millisecond)
				if _, err := c.WriteTo(ask, &packet.Addr{HardwareAddr: all[:]}); err != nil {
					return err
				}
			}
			if err := c.SetReadDeadline(next); err != nil {
				return err
			}
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				continue
			}
			fr, err := parseFrame(buf[:n])
			if err != nil || fr.to.Port() != portClient {
				continue
			}
			if reply, err := dhcpv4.FromBytes(fr.payload); err == nil && reply.OpCode == dhcpv4.OpcodeBootReply && f(reply) {
				return nil
			}
		}
	})
}

// Beside another server, that one gives the address and ours says what to boot.
func TestProxyBesideDnsmasq(t *testing.T) {
	w := newWires(t, 3)
	var seen events
	cfg, _ := netConfig(seen.add)
	cfg.Mode, cfg.Subnets, cfg.Store = Proxy, nil, nil
	start(t, cfg, nil)
	dnsmasq(t, w, 1)
	var gave, told bool
	collect(t, w, 0, message{kind: discover, mac: mac(0), options: optionsIPXE}, func(m *dhcpv4.DHCPv4) bool {
		switch from := optAddr(m, 54); from {
		case ip4("10.77.0.9"):
			gave = gave || addrOf(m.YourIPAddr).IsValid()
		case ip4("10.77.0.1"):
			if addrOf(m.YourIPAddr).IsValid() || m.BootFileName != "http://10.77.0.1/boot.ipxe" {
				t.Errorf("our offer: %v", m.Summary())
			}
			told = true
		}
		return gave && told
	})
	if env := udhcpc(t, w, 2); env["serverid"] != "10.77.0.9" {
		t.Errorf("the address is from %q", env["serverid"])
	}
	if seen.has(func(e Event) bool { return e.Kind == OtherServer }) {
		t.Error("the server that is meant to be there was reported")
	}
}

// A second server on the wire is found by the search at the start.
func TestSecondServerFound(t *testing.T) {
	w := newWires(t, 3)
	dnsmasq(t, w, 1)
	// It serves as soon as it answers a machine.
	collect(t, w, 2, message{kind: discover, mac: mac(2)}, func(m *dhcpv4.DHCPv4) bool { return optAddr(m, 54) == ip4("10.77.0.9") })
	var seen events
	cfg, _ := netConfig(seen.add)
	start(t, cfg, nil)
	until(t, "report of another server", func() bool {
		return seen.has(func(e Event) bool { return e.Kind == OtherServer && e.Addr == ip4("10.77.0.9") && e.MAC == mac(1) })
	})
}

// A request that arrives between two servers is answered by the second one, when
// the sockets were kept.
func TestKeptSockets(t *testing.T) {
	w := newWires(t, 1)
	cfg, _ := netConfig(nil)
	first, err := Listen(t.Context(), "br0")
	if err != nil {
		t.Fatal(err)
	}
	var kept Sockets
	for _, c := range []struct {
		from *net.UDPConn
		to   **net.UDPConn
	}{{first.DHCP, &kept.DHCP}, {first.PXE, &kept.PXE}} {
		f, err := c.from.File()
		if err != nil {
			t.Fatal(err)
		}
		p, err := net.FilePacketConn(f)
		if err != nil {
			t.Fatal(err)
		}
		*c.to = p.(*net.UDPConn)
		f.Close()
	}
	start(t, cfg, &first)()
	done := make(chan struct{})
	var stop func()
	w.on(t, 0, func() error {
		ifi, err := net.InterfaceByName("c0")
		if err != nil {
			return err
		}
		c, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_IP, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		all := MAC{255, 255, 255, 255, 255, 255}
		ask := appendFrame(nil, all, mac(0), netip.AddrPortFrom(broadcast().Addr(), portServer), netip.AddrPortFrom(netip.IPv4Unspecified(), portClient),
			message{kind: discover, mac: mac(0), flags: 0x8000}.bytes())
		if _, err := c.WriteTo(ask, &packet.Addr{HardwareAddr: all[:]}); err != nil {
			return err
		}
		go func() {
			defer close(done)
			buf := make([]byte, 2000)
			for c.SetReadDeadline(time.Now().Add(20*time.Second)) == nil {
				n, _, err := c.ReadFrom(buf)
				if err != nil {
					t.Errorf("no answer: %v", err)
					return
				}
				if fr, err := parseFrame(buf[:n]); err == nil && fr.to.Port() == portClient {
					return
				}
			}
		}()
		return nil
	})
	stop = start(t, cfg, &kept)
	<-done
	stop()
}

func TestListenErrors(t *testing.T) {
	newWires(t, 0)
	cfg, store := netConfig(nil)
	if _, err := Listen(t.Context(), "nosuch"); err == nil {
		t.Error("it listens on an interface that is not there")
	}
	s, err := Listen(t.Context(), "br0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Listen(t.Context(), "br0"); err == nil || !strings.Contains(err.Error(), "another DHCP server runs") {
		t.Errorf("a second server on the same interface: %v", err)
	}
	cfg.Interface = "lo"
	if _, err := New(t.Context(), cfg, s); err == nil {
		t.Error("it serves on lo")
	}
	cfg.Interface, cfg.Server = "br0", ip4("10.77.0.3")
	if _, err := New(t.Context(), cfg, s); err == nil || !strings.Contains(err.Error(), "configure it first") {
		t.Errorf("it serves with an address that it has not: %v", err)
	}
	cfg.Server, cfg.Store = ip4("10.77.0.1"), failingStore{store}
	if _, err := New(t.Context(), cfg, s); err == nil {
		t.Error("it serves without the leases")
	}
}

// failingStore cannot be read.
type failingStore struct{ *memory }

func (failingStore) Load(context.Context) ([]Lease, error) { return nil, errStore }
