package machine

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"ssi/netboot/dhcp"
)

// A machine that asks a node that boots machines no more finds the one that does,
// and goes on with the key that it has.
func TestJoinAfterInitMoved(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.adm.Booted(mac(1), ip("127.0.0.1"))
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close() // its port refuses from now on
	now := serve(t, w.adm)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var con console
	j := joinerOf(t, mac(1))
	j.url = gone.URL
	j.say = func(text string) {
		con.say(text)
		if strings.Contains(text, "ssi node approve") {
			cancel(errors.New("enough"))
		}
	}
	finds := 0
	j.find = func(context.Context, MAC) (string, error) {
		if finds++; finds == 1 { // init has not moved yet
			return "", errors.New("nobody answers")
		}
		return now, nil
	}
	if _, err := j.run(ctx); err == nil || !strings.HasSuffix(err.Error(), "enough") {
		t.Errorf("it ends with %v", err)
	}
	j.http.CloseIdleConnections()
	if finds != 2 || !con.has("does not answer at "+gone.URL) || !con.has("boots machines at "+now) {
		t.Errorf("after %d searches the console says %q", finds, con.lines)
	}
}

// bootAll is a dhcp.Machines that boots whoever asks.
type bootAll struct{}

func (bootAll) Lookup(dhcp.Query) dhcp.Machine    { return dhcp.Machine{State: dhcp.Boot} }
func (bootAll) Owner(netip.Addr) (dhcp.MAC, bool) { return dhcp.MAC{}, false }

// noLeases is a dhcp.Store that keeps nothing.
type noLeases struct{}

func (noLeases) Load(context.Context) ([]dhcp.Lease, error) { return nil, nil }
func (noLeases) Commit(context.Context, []dhcp.Change) error {
	return errors.New("a search takes a lease")
}

// On a real segment the search is answered by our DHCP server, which has addresses
// of its own or is a proxy; without one it says so.
func TestFind(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: network namespaces cannot be made")
	}
	server, client := newNetNS(t), newNetNS(t)
	server.must("link", func() error {
		hw := mac(1)
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "s0"}, PeerName: "eth0",
			PeerHardwareAddr: net.HardwareAddr(hw[:]), PeerNamespace: netlink.NsFd(client.file.Fd())}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return address("s0", "10.9.0.1/24")
	})
	search := func() (url string, err error) {
		err = client.do(func() (err error) { url, err = Find(t.Context(), mac(1).String()); return err })
		return url, err
	}
	if url, err := search(); err == nil || !strings.Contains(err.Error(), "no interface with the address 52:54:00:00:00:01") {
		t.Errorf("without an address: %q, %v", url, err)
	}
	if _, err := Find(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "is no MAC") {
		t.Errorf("a bad MAC: %v", err)
	}
	client.must("address", func() error { return address("eth0", "10.9.0.2/24") })
	if url, err := search(); err == nil || !strings.Contains(err.Error(), "eth0: nobody answers") {
		t.Errorf("without a server: %q, %v", url, err)
	}
	for _, mode := range []dhcp.Mode{dhcp.Pool, dhcp.Proxy} {
		conf := dhcp.Config{Mode: mode, Interface: "s0", Server: ip("10.9.0.1"), Machines: bootAll{},
			Loaders: dhcp.Loaders{IPXE: "http://10.9.0.1:8067/" + Script}}
		if mode == dhcp.Pool {
			conf.Store = noLeases{}
			conf.Subnets = []dhcp.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Range: dhcp.Range{First: ip("10.9.0.100"), Last: ip("10.9.0.110")}}}
		}
		var d *dhcp.Server
		server.must("serve", func() error {
			sockets, err := dhcp.Listen(t.Context(), "s0")
			if err != nil {
				return err
			}
			d, err = dhcp.New(t.Context(), conf, sockets)
			return err
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Serve(ctx) }()
		if url, err := search(); err != nil || url != "http://10.9.0.1:8067" {
			t.Errorf("mode %v: %q, %v", mode, url, err)
		}
		cancel()
		if err := errors.Join(<-done, d.Close()); err != nil {
			t.Error(err)
		}
	}
}

// offer is an answer with a boot file.
func offer(file string) *dhcpv4.DHCPv4 {
	m := mac(1)
	return &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: 1, TransactionID: dhcpv4.TransactionID{1, 2, 3, 4}, ClientHWAddr: m[:],
		Options: dhcpv4.Options{53: {byte(dhcpv4.MessageTypeAck)}, 67: []byte(file)}}
}

func TestParseOffer(t *testing.T) {
	xid := dhcpv4.TransactionID{1, 2, 3, 4}
	if url, err := parseOffer(offer("http://10.0.0.9:8067/boot.ipxe").ToBytes(), mac(1), xid); err != nil || url != "http://10.0.0.9:8067" {
		t.Errorf("got %q, %v", url, err)
	}
	for _, file := range []string{"", "undionly.kpxe", "http://10.0.0.9:8067/other", "https://10.0.0.9:8067/boot.ipxe", "http://x:8067/boot.ipxe",
		"http://[::1]:8067/boot.ipxe", "http://10.0.0.9/boot.ipxe", "http://10.0.0.9:0/boot.ipxe", "http://u@10.0.0.9:8067/boot.ipxe", "http://%"} {
		if url, err := parseOffer(offer(file).ToBytes(), mac(1), xid); err == nil {
			t.Errorf("%q is taken: %q", file, url)
		}
	}
	good := offer("http://10.0.0.9:8067/boot.ipxe").ToBytes()
	if _, err := parseOffer(good, mac(2), xid); err == nil {
		t.Error("an answer for another machine is taken")
	}
	if _, err := parseOffer(good, mac(1), dhcpv4.TransactionID{9}); err == nil {
		t.Error("an answer to another question is taken")
	}
}

func FuzzOffer(f *testing.F) {
	f.Add(offer("http://10.0.0.9:8067/boot.ipxe").ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		url, err := parseOffer(b, mac(1), dhcpv4.TransactionID{1, 2, 3, 4})
		if err != nil {
			return
		}
		if at, err := netip.ParseAddrPort(strings.TrimPrefix(url, "http://")); err != nil || "http://"+at.String() != url {
			t.Errorf("%q: %q", b, url)
		}
	})
}
