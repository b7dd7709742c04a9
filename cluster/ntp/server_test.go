package ntp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/facebook/time/ntp/protocol"
)

// request is a plain client request of a version.
func request(version, mode uint8) []byte {
	b, err := (&protocol.Packet{Settings: version<<3 | mode, TxTimeSec: 1, TxTimeFrac: 2}).Bytes()
	if err != nil {
		panic(err)
	}
	return b
}

func testAnswerer() *answerer {
	return &answerer{reference: reference{stratum: LocalStratum, source: -1}, id: referenceID(netip.Addr{})}
}

func TestReply(t *testing.T) {
	a := testAnswerer()
	now := time.Date(2026, 11, 28, 1, 2, 3, 0, time.UTC)
	out, ok := a.reply(request(4, modeClient), now, time.Hour)
	if !ok {
		t.Fatal("a plain request gets no answer")
	}
	if out.OrigTimeSec != 1 || out.OrigTimeFrac != 2 || out.Settings != 4<<3|modeServer || out.Stratum != LocalStratum {
		t.Errorf("answer %+v", out)
	}
	if got := protocol.Unix(out.RxTimeSec, out.RxTimeFrac); got.Sub(now).Abs() > time.Microsecond {
		t.Errorf("received at %v", got)
	}
	if d := float64(out.RootDispersion) / 65536; d < 0.05 || d > 0.06 { // 15 ppm of an hour
		t.Errorf("dispersion %v s", d)
	}
	for what, bad := range map[string][]byte{
		"empty":     {},
		"short":     request(4, modeClient)[:47],
		"long":      append(request(4, modeClient), 0),
		"control":   request(4, 6),
		"private":   request(4, 7),
		"symmetric": request(4, 1),
		"server":    request(4, modeServer),
		"version 2": request(2, modeClient),
		"version 5": request(5, modeClient),
	} {
		if _, ok := a.reply(bad, now, 0); ok {
			t.Errorf("%s is answered", what)
		}
	}
}

func TestReferenceID(t *testing.T) {
	if got := referenceID(netip.MustParseAddr("10.1.2.3")); got != 0x0a010203 {
		t.Errorf("IPv4: %x", got)
	}
	if a, b := referenceID(netip.MustParseAddr("fd00::1")), referenceID(netip.MustParseAddr("fd00::2")); a == b {
		t.Errorf("two IPv6 addresses: %x", a)
	}
}

// A client may ask often, not endlessly; the table has an end, and who is in it
// keeps its place.
func TestLimiter(t *testing.T) {
	l := newLimiter()
	addr := netip.MustParseAddr("10.0.0.1")
	for i := range clientBurst {
		if !l.take(addr, 0) {
			t.Fatalf("request %d is refused", i)
		}
	}
	if l.take(addr, clientEvery-1) {
		t.Error("one too many is answered")
	}
	if !l.take(addr, clientEvery) || l.take(addr, clientEvery) {
		t.Error("the rate is not one each clientEvery")
	}
	other := netip.MustParseAddr("10.1.0.0")
	for range 5000 {
		other = other.Next()
		l.take(other, clientEvery)
	}
	if len(l.clients) > maxClients {
		t.Errorf("%d clients", len(l.clients))
	}
	if l.take(other.Next(), clientEvery) {
		t.Error("a full table took one more")
	}
	if !l.take(other.Next(), time.Hour) {
		t.Error("the table does not forget")
	}
}

// Who is not allowed hears nothing, the others do.
func TestAllowed(t *testing.T) {
	t.Parallel()
	_, addr := openInit(t, newSoftClock(0), func(cfg *Config) {
		cfg.Allow = func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.2") }
	})
	ask := func(from string) bool {
		conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, net.UDPAddrFromAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(request(4, modeClient)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := conn.Read(make([]byte, 1000))
		return err == nil && n == protocol.PacketSizeBytes
	}
	if ask("127.0.0.1") {
		t.Error("a stranger was answered")
	}
	eventually(t, "the node is answered", func() bool { return ask("127.0.0.2") })
}

// Whatever comes, the server answers with 48 bytes or not at all.
func FuzzReply(f *testing.F) {
	f.Add(request(4, modeClient))
	f.Add(request(3, 6))
	f.Add([]byte{})
	f.Add(make([]byte, 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, ok := testAnswerer().reply(b, time.Unix(1e9, 0), time.Hour)
		if !ok {
			return
		}
		answer, err := out.Bytes()
		if err != nil || len(answer) != len(b) {
			t.Fatalf("%d bytes are answered with %d (%v)", len(b), len(answer), err)
		}
	})
}
