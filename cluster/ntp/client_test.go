package ntp

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/facebook/time/ntp/protocol"
)

// fakeServer answers each request on loopback with what answer makes of it.
func fakeServer(t testing.TB, answer func(request []byte) []byte) netip.AddrPort {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(answer(b[:n]), from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func askOnce(addr netip.AddrPort) (*server, [][]Sample) {
	c := client{mono: func() time.Duration { return 0 }}
	s := &server{name: "test", addr: addr}
	return s, c.round(context.Background(), []*server{s})
}

// good is a right answer, to be spoilt.
func good(request []byte) *protocol.Packet {
	out, _ := testAnswerer().reply(request, time.Now(), 0)
	out.TxTimeSec, out.TxTimeFrac = protocol.Time(time.Now())
	return out
}

func bytesOf(p *protocol.Packet) []byte {
	b, err := p.Bytes()
	if err != nil {
		panic(err)
	}
	return b
}

func TestClientRefuses(t *testing.T) {
	for what, answer := range map[string]func([]byte) []byte{
		"short":          func(r []byte) []byte { return bytesOf(good(r))[:40] },
		"another origin": func(r []byte) []byte { p := good(r); p.OrigTimeFrac++; return bytesOf(p) },
		"a client":       func(r []byte) []byte { return r },
		"unsynchronised": func(r []byte) []byte { p := good(r); p.Settings |= 3 << 6; return bytesOf(p) },
		"stratum 16":     func(r []byte) []byte { p := good(r); p.Stratum = 16; return bytesOf(p) },
		"dispersion":     func(r []byte) []byte { p := good(r); p.RootDispersion = 1 << 31; return bytesOf(p) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, answers := askOnce(fakeServer(t, answer))
			if len(answers[0]) != 0 || s.err == nil || s.missed != 1 {
				t.Errorf("answers %v, err %v", answers, s.err)
			}
		})
	}
	s, answers := askOnce(fakeServer(t, func(r []byte) []byte { return bytesOf(good(r)) }))
	if s.err != nil || len(answers[0]) != 1 || answers[0][0].Offset.Abs() > 100*time.Millisecond {
		t.Errorf("a right answer: %v, %v", answers, s.err)
	}
}

// A server that says "too often" is left alone for a while.
func TestKissOfDeath(t *testing.T) {
	asked := make(chan struct{}, 100)
	addr := fakeServer(t, func(r []byte) []byte {
		asked <- struct{}{}
		p := good(r)
		p.Stratum, p.ReferenceID = 0, binary.BigEndian.Uint32([]byte("RATE"))
		return bytesOf(p)
	})
	c := client{mono: func() time.Duration { return 0 }}
	s := &server{name: "test", addr: addr}
	for range kissRounds + 1 {
		c.round(context.Background(), []*server{s})
	}
	if len(asked) != 1 || s.err == nil || !strings.Contains(s.err.Error(), "RATE") {
		t.Errorf("asked %d times, err %v", len(asked), s.err)
	}
	c.round(context.Background(), []*server{s})
	if len(asked) != 2 {
		t.Error("it is never asked again")
	}
}

// Of the answers of a burst the quickest one counts, and one that is lost does no
// harm; who does not answer at all is not asked in vain for long.
func TestBurst(t *testing.T) {
	t.Parallel()
	const slow = 300 * time.Millisecond
	ask := func(answers ...string) (asked int, s *server, got [][]Sample) {
		questions := make(chan struct{}, 2*burst)
		addr := fakeServer(t, func(r []byte) []byte {
			questions <- struct{}{}
			p := good(r)
			switch answers[min(len(questions), len(answers))-1] {
			case "slow": // it was under way for so long: answered before it came
				p.RxTimeSec, p.RxTimeFrac = protocol.Time(time.Now().Add(slow))
			case "lost":
				p.OrigTimeFrac++ // no answer to this question: waited for in vain
			}
			return bytesOf(p)
		})
		c := client{mono: func() time.Duration { return 0 }}
		s = &server{name: "test", addr: addr, burst: burst}
		got = c.round(context.Background(), []*server{s})
		return len(questions), s, got
	}
	asked, s, got := ask("slow", "slow", "lost", "quick")
	if asked != burst || s.err != nil || len(got[0]) != 1 || got[0][0].Delay > slow/2 {
		t.Errorf("after %d questions: %+v, %v", asked, got, s.err)
	}
	asked, s, got = ask("lost")
	if asked != burstLosses || s.err == nil || len(got[0]) != 0 || s.missed != 1 {
		t.Errorf("nobody answered %d questions: %+v, %v", asked, got, s.err)
	}
}

func TestNameThatIsNone(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing is sent
	c := client{mono: func() time.Duration { return 0 }}
	s := &server{name: "nosuch.invalid"}
	c.round(ctx, []*server{s})
	if s.err == nil || !strings.Contains(s.err.Error(), "nosuch.invalid") {
		t.Errorf("err %v", s.err)
	}
}

// Whatever a server that sees the request answers, the client gives an error or
// figures that can be calculated with.
func FuzzAnswer(f *testing.F) {
	f.Add(bytesOf(good(request(4, modeClient))), int64(0))
	f.Add([]byte{0x24, 1}, int64(1e9))
	f.Fuzz(func(t *testing.T, b []byte, now int64) {
		q := question{1, 2}
		if len(b) >= protocol.PacketSizeBytes {
			copy(b[24:32], bytesOf(q.packet())[40:48])
		}
		sent := time.Unix(now%1e10, 0)
		sample, err := q.evaluate(b, sent, sent.Add(time.Millisecond))
		if err != nil {
			return
		}
		if !sample.plausible() {
			t.Fatalf("sample %+v", sample)
		}
		d := newDiscipline(false, true, DefaultStep, 0, false)
		d.follow(1)
		d.round(time.Second, [][]Sample{{sample}})
		d.status(time.Second, []*server{{}})
	})
}

// The four timestamps give offset and delay, over the end of the era too.
func TestEvaluate(t *testing.T) {
	for _, at := range []time.Time{
		time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC),
		time.Date(2036, 2, 7, 6, 28, 15, 999e6, time.UTC), // the era ends within the exchange
	} {
		q := question{7, 8}
		p := &protocol.Packet{Settings: 4<<3 | modeServer, Stratum: 2, OrigTimeSec: 7, OrigTimeFrac: 8, RootDelay: 1 << 15, RootDispersion: 1 << 14}
		received := at.Add(10*time.Millisecond + time.Hour)
		p.RxTimeSec, p.RxTimeFrac = protocol.Time(received)
		p.TxTimeSec, p.TxTimeFrac = protocol.Time(received.Add(5 * time.Millisecond))
		s, err := q.evaluate(bytesOf(p), at, at.Add(25*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if (s.Offset-time.Hour).Abs() > time.Microsecond || (s.Delay-20*time.Millisecond).Abs() > time.Microsecond ||
			s.RootDelay != 500*time.Millisecond || s.RootDispersion != 250*time.Millisecond {
			t.Errorf("%v: %+v", at, s)
		}
	}
}
