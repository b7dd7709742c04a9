package dhcp

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

// Any packet gets a bounded answer or none, and no panic.
func FuzzRequest(f *testing.F) {
	for _, options := range []string{"", optionsIPXE, optionsBIOS, optionsEFI64, "52 04 01020304"} {
		for kind := discover; kind <= inform; kind++ {
			f.Add(message{kind: kind, mac: mac(3), options: options}.bytes(), false)
			f.Add(message{kind: kind, mac: mac(3), options: options, wanted: "10.77.0.10", server: "10.77.0.1"}.bytes(), true)
			f.Add(message{kind: kind, mac: mac(77), options: options, client: "10.77.0.200", relay: "10.77.0.254"}.bytes(), false)
		}
	}
	own := testConfig(nodes())
	proxy := own
	proxy.Mode = Proxy
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, b []byte, pxe bool) {
		port := uint16(portServer)
		if pxe {
			port = portPXE
		}
		for _, cfg := range []Config{own, proxy} {
			core, err := NewCore(cfg, nil, now)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // once more, with what the first time left
				r, err := ParseRequest(b, port, netip.MustParseAddrPort("10.77.0.33:68"))
				if err != nil {
					return
				}
				d := core.Handle(now, r)
				if d.Reply == nil {
					continue
				}
				if n := len(d.Reply.Message.ToBytes()); n > maxPacket-ipUDP {
					t.Fatalf("reply of %d bytes", n)
				}
				if !d.Reply.To.Addr().Is4() || d.Reply.To.Port() == 0 {
					t.Fatalf("reply to %v", d.Reply.To)
				}
			}
			if len(core.table.byAddr) > 2 {
				t.Fatalf("one machine has %d addresses", len(core.table.byAddr))
			}
		}
	})
}

func FuzzFrame(f *testing.F) {
	to, from := netip.MustParseAddrPort("255.255.255.255:68"), netip.MustParseAddrPort("10.77.0.1:67")
	payload := message{kind: 2, mac: mac(3)}.bytes()
	f.Add(appendFrame(nil, mac(1), mac(2), to, from, payload))
	f.Fuzz(func(t *testing.T, b []byte) {
		otherServer(b, ip4("10.77.0.1"))
		fr, err := parseFrame(b)
		if err != nil {
			return
		}
		again, err := parseFrame(appendFrame(nil, mac(1), fr.src, fr.to, fr.from, fr.payload))
		if err != nil || again.from != fr.from || again.to != fr.to || !bytes.Equal(again.payload, fr.payload) {
			t.Fatalf("%+v became %+v, %v", fr, again, err)
		}
	})
}

func FuzzLease(f *testing.F) {
	f.Add([]byte("10.0.0.9 52:54:00:77:00:02 bound 2026-01-02T15:04:05Z"))
	f.Add([]byte("10.0.0.9 52:54:00:77:00:02 declined 2026-01-02T15:04:05.5+01:00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l, again Lease
		if l.UnmarshalText(b) != nil {
			return
		}
		text, err := l.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText(text); err != nil || again.Addr != l.Addr || again.MAC != l.MAC || again.Declined != l.Declined || !again.Expires.Equal(l.Expires) {
			t.Fatalf("%+v became %+v, %v", l, again, err)
		}
	})
}
