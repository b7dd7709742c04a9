package ra

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"
)

func packet(from string, hops int, hexBytes string) Packet {
	b, err := hex.DecodeString(hexBytes)
	if err != nil {
		panic(err)
	}
	return Packet{From: netip.MustParseAddr(from), HopLimit: hops, Bytes: b}
}

const (
	// What iPXE and Linux send: with and without the source link-layer address.
	solicitLink  = "8500000000000000" + "0101525400770002"
	solicitPlain = "8500000000000000"
	// A router with lifetime 1800 s and a prefix.
	realRouter = "8600000040000708" + "0000000000000000" + "0101525400770001" +
		"030440c00000070800000708000000002001" + "0db8000000000000000000000000"
	emptyRouter = "8600000000000000" + "0000000000000000" + "0101525400770001"
)

func TestParseSolicitation(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Packet
		ok   bool
	}{
		{"with link address", packet("fe80::1", 255, solicitLink), true},
		{"without source address", packet("::", 255, solicitPlain), true},
		{"link address without source address", packet("::", 255, solicitLink), false},
		{"from another link", packet("fe80::1", 64, solicitLink), false},
		{"code", packet("fe80::1", 255, "8501000000000000"), false},
		{"too short", packet("fe80::1", 255, "85000000000000"), false},
		{"empty option", packet("fe80::1", 255, "8500000000000000"+"0100525400770002"), false},
		{"option beyond the end", packet("fe80::1", 255, "8500000000000000"+"0102525400770002"), false},
		{"advertisement", packet("fe80::1", 255, emptyRouter), false},
	} {
		if err := ParseSolicitation(c.p); (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok %v", c.name, err, c.ok)
		}
	}
}

func TestAdvertisementOffersNothing(t *testing.T) {
	b := Advertisement([6]byte{0x52, 0x54, 0, 0x77, 0, 1})
	want, _ := hex.DecodeString(emptyRouter)
	if !bytes.Equal(b, want) {
		t.Fatalf("advertisement %x, want %x", b, want)
	}
	a, err := ParseAdvertisement(Packet{From: netip.MustParseAddr("fe80::1"), HopLimit: 255, Bytes: b})
	if err != nil || a.Offers || a.Lifetime != 0 {
		t.Fatalf("our own advertisement is %+v, %v", a, err)
	}
}

func TestResponder(t *testing.T) {
	now := time.Unix(1000, 0)
	ask := packet("fe80::1", 255, solicitLink)
	var r Responder
	for i := range Rate {
		if !r.Handle(now, ask) {
			t.Fatalf("solicitation %d of a second has no answer", i)
		}
	}
	if r.Handle(now, ask) {
		t.Fatal("more answers than Rate")
	}
	now = now.Add(time.Second)
	if !r.Handle(now, ask) {
		t.Fatal("no answer after a second")
	}
	if r.Handle(now, packet("fe80::2", 255, emptyRouter)); !r.Handle(now, ask) {
		t.Fatal("an empty advertisement silenced the responder")
	}
	if r.Handle(now, packet("2001:db8::1", 255, realRouter)); !r.Handle(now, ask) {
		t.Fatal("an advertisement that is no router's silenced the responder")
	}
	r.Handle(now, packet("fe80::2", 255, realRouter))
	if r.Handle(now, ask) {
		t.Fatal("it answers beside a real router")
	}
	if !r.Handle(now.Add(Silence+time.Second), ask) {
		t.Fatal("it is silent for ever")
	}
}

func FuzzResponder(f *testing.F) {
	for _, s := range []string{solicitLink, solicitPlain, realRouter, emptyRouter} {
		b, _ := hex.DecodeString(s)
		f.Add(b, true, 255)
	}
	f.Fuzz(func(t *testing.T, b []byte, linkLocal bool, hops int) {
		p := Packet{From: netip.IPv6Unspecified(), HopLimit: hops, Bytes: b}
		if linkLocal {
			p.From = netip.MustParseAddr("fe80::1")
		}
		var r Responder
		if r.Handle(time.Unix(1000, 0), p) && (b[0] != typeSolicitation || hops != 255 || len(b) < 8) {
			t.Fatalf("answered %x", b)
		}
		if a, err := ParseAdvertisement(p); err == nil && a.Lifetime > 0 && !a.Offers {
			t.Fatalf("a router that offers nothing: %x", b)
		}
	})
}
