package machine

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"ssi/internal/api"
)

// A machine with three interfaces, two of them on the segment of the cluster and
// one elsewhere, finds the one that it booted from.
func TestWhich(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: network namespaces cannot be made")
	}
	server, client := newNetNS(t), newNetNS(t)
	server.must("bridge", func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}); err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br")
		if err != nil {
			return err
		}
		for i, port := range []string{"p0", "p1", "p2"} {
			hw := mac(i + 1)
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth" + port[1:],
				PeerHardwareAddr: net.HardwareAddr(hw[:]), PeerNamespace: netlink.NsFd(client.file.Fd())}
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
			if i > 0 {
				link, err := netlink.LinkByName(port)
				if err == nil {
					err = netlink.LinkSetMaster(link, bridge)
				}
				if err != nil {
					return err
				}
			}
			if err := address(port); err != nil {
				return err
			}
		}
		return address("br", "10.9.0.1/24")
	})
	w := newWorld(t)
	w.adm.neighbours = server
	w.run(t)
	w.add(api.MachineSpec{MACs: []string{mac(3).String()}})
	var l net.Listener
	server.must("listen", func() (err error) { l, err = net.Listen("tcp", "10.9.0.1:0"); return err })
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler(t, w.adm)}} //nolint:gosec // a test
	s.Start()
	t.Cleanup(s.Close)

	found := func() (m MAC, why error) {
		_ = client.do(func() error { m, why = which(t.Context(), s.URL); return nil })
		return m, why
	}
	client.must("another network", func() error { return address("eth0", "10.8.0.3/24") })
	if _, why := found(); why == nil || !strings.Contains(why.Error(), "no interface has an address in the network of "+s.URL) {
		t.Errorf("without an address there: %v", why)
	}
	client.must("addresses", func() error {
		if err := address("eth1", "10.9.0.2/24"); err != nil {
			return err
		}
		return address("eth2", "10.9.0.3/24")
	})
	if _, why := found(); why == nil || !strings.Contains(why.Error(), "eth1 (52:54:00:00:00:02): the cluster has not booted") || !strings.Contains(why.Error(), "; eth2 (") {
		t.Errorf("before it was booted: %v", why)
	}
	w.adm.Booted(mac(3), ip("10.9.0.3"))
	w.settled()
	if m, why := found(); why != nil || m != mac(3) {
		t.Errorf("found %v, %v", m, why)
	}
	s.Close()
	if _, why := found(); why == nil || !strings.Contains(why.Error(), "refused") {
		t.Errorf("nobody is there: %v", why)
	}
	if _, err := Facing("http://localhost:1"); err == nil {
		t.Error("a name is taken for an address")
	}
}
