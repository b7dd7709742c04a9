package dhcp

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// While one machine floods the network with requests from addresses that it makes
// up, and with garbage, a known machine gets its address, and memory stays bounded.
func TestFloodOnTheWire(t *testing.T) {
	w := newWires(t, 2)
	var seen events
	cfg, store := netConfig(seen.add)
	sockets, err := Listen(t.Context(), "br0")
	if err != nil {
		t.Fatal(err)
	}
	start(t, cfg, &sockets)
	var c *packet.Conn
	w.on(t, 1, func() error {
		ifi, err := net.InterfaceByName("c0")
		if err == nil {
			c, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, nil) // it does not read
		}
		return err
	})
	defer c.Close()
	var stop atomic.Bool
	var sent atomic.Int64
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		rng := rand.New(rand.NewPCG(1, 1))
		all := MAC{255, 255, 255, 255, 255, 255}
		to, from := netip.AddrPortFrom(broadcast().Addr(), portServer), netip.AddrPortFrom(netip.IPv4Unspecified(), portClient)
		for !stop.Load() {
			m := MAC{2, 0xff, byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())}
			b := message{kind: discover, mac: m, options: optionsBIOS}.bytes()
			if rng.IntN(4) == 0 {
				for range 8 {
					b[rng.IntN(len(b))] = byte(rng.Uint32())
				}
				b = b[:rng.IntN(len(b))]
			}
			if _, err := c.WriteTo(appendFrame(nil, all, m, to, from, b), &packet.Addr{HardwareAddr: all[:]}); err != nil {
				t.Errorf("flood: %v", err)
				return
			}
			if sent.Add(1)%10 == 0 { // the machine that runs the test is not to be flooded
				pause()
			}
		}
	}()
	until(t, "the flood", func() bool {
		return sent.Load() > 1000 && seen.has(func(e Event) bool { return e.Kind == GuestFlood })
	})
	if env := udhcpc(t, w, 0); env["ip"] != "10.77.0.50" {
		t.Errorf("the known machine got %q", env["ip"])
	}
	stop.Store(true)
	<-flooded
	leases, err := store.Load(t.Context())
	if err != nil || len(leases) != 1 {
		t.Errorf("leases %v, %v: want that of the known machine", leases, err)
	}
}

// pause lets others run for a moment.
func pause() {
	t := time.NewTimer(time.Millisecond)
	defer t.Stop()
	<-t.C
}
