package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pin "github.com/pin/tftp/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files is a tree of files in memory.
type files map[string][]byte

type content struct{ *bytes.Reader }

func (content) Close() error { return nil }

type info struct {
	fs.FileInfo
	size int64
}

func (i info) Size() int64 { return i.size }

func (f files) Open(name string) (io.ReadSeekCloser, fs.FileInfo, error) {
	b, ok := f[name]
	if name == "broken" {
		return nil, nil, errors.New("the file was changed after it was checked")
	}
	if !ok {
		return nil, nil, fs.ErrNotExist
	}
	if name == "short" { // it says more than it has
		return content{bytes.NewReader(b[:len(b)/2])}, info{size: int64(len(b))}, nil
	}
	return content{bytes.NewReader(b)}, info{size: int64(len(b))}, nil
}

// server starts one on loopback; its reports come by the channel.
func server(t testing.TB, cfg Config) (*Server, <-chan Transfer) {
	reports := make(chan Transfer, 1000)
	if cfg.Log == nil {
		cfg.Log = func(r Transfer) { reports <- r }
	}
	c, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, reports
}

func report(t testing.TB, reports <-chan Transfer) Transfer {
	select {
	case r := <-reports:
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("no report")
		return Transfer{}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func fast() Limits { return Limits{Wait: 5 * time.Millisecond, Retries: 100} }

// An independent client reads files of all kinds of length.
func TestRead(t *testing.T) {
	tree := files{}
	for _, n := range []int{0, 1, 511, 512, 513, 1468, 1468 * 2, 100000, 600 * 512} {
		tree[fmt.Sprint(n)] = random(n)
	}
	s, reports := server(t, Config{Files: tree})
	for _, block := range []int{512, 1468, 9000} {
		for name, want := range tree {
			c, err := pin.NewClient(s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c.SetBlockSize(block)
			c.RequestTSize(true)
			w, err := c.Receive("/"+name, "octet")
			if err != nil {
				t.Fatal(err)
			}
			if n, ok := w.(pin.IncomingTransfer).Size(); !ok || n != int64(len(want)) {
				t.Errorf("%s: the size was told as %d, %v", name, n, ok)
			}
			var got bytes.Buffer
			if _, err := w.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s at %d: %d bytes, %v", name, block, got.Len(), err)
			}
			if r := report(t, reports); r.Err != nil || r.Bytes != int64(len(want)) || r.Name != "/"+name || r.Size != r.Bytes || !r.Client.Addr().IsLoopback() {
				t.Errorf("report %+v", r)
			}
		}
	}
}

// machine is a client by hand.
type machine struct {
	t    testing.TB
	c    *net.UDPConn
	to   netip.AddrPort // where answers go
	from netip.AddrPort
}

func newMachine(t testing.TB, s *Server) *machine {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &machine{t: t, c: c, to: s.Addr()}
}

func (m *machine) send(b []byte) {
	m.t.Helper()
	if _, err := m.c.WriteToUDPAddrPort(b, m.to); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) receive() []byte {
	m.t.Helper()
	b := make([]byte, 70000)
	if err := m.c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	n, from, err := m.c.ReadFromUDPAddrPort(b)
	if err != nil {
		m.t.Fatal(err)
	}
	m.from = from
	return b[:n]
}

// second acknowledges the first block, from where that came, and waits for the next one:
// the first may come again before.
func (m *machine) second() {
	m.t.Helper()
	m.to = m.from
	m.send([]byte{0, opAck, 0, 1})
	for b := m.receive(); b[1] != opData || b[3] != 2; b = m.receive() {
		if b[1] != opData {
			m.t.Fatalf("no second block: %q", b)
		}
	}
}

// get reads a file; lost says which of the datagrams, in both directions, are
// lost.
func (m *machine) get(name string, lost func() bool, options ...string) ([]byte, error) {
	m.send(rrq(opRead, name, "octet", options...))
	block, window := DefaultBlock, 1
	var got []byte
	have, since := uint16(0), 0
	for {
		b := m.receive()
		if lost() {
			continue
		}
		m.to = m.from
		ack := func() {
			since = 0
			if !lost() {
				m.send(binary.BigEndian.AppendUint16([]byte{0, opAck}, have))
			}
		}
		switch binary.BigEndian.Uint16(b) {
		case opOACK:
			f := strings.Split(string(b[2:]), "\x00")
			for i := 0; i+1 < len(f); i += 2 {
				switch f[i] {
				case "blksize":
					_, _ = fmt.Sscan(f[i+1], &block)
				case "windowsize":
					_, _ = fmt.Sscan(f[i+1], &window)
				}
			}
			if len(got) == 0 {
				ack()
			}
		case opData:
			n := binary.BigEndian.Uint16(b[2:])
			switch {
			case n == have+1:
				have++
				got = append(got, b[4:]...)
				if since++; since >= window || len(b) < block+4 {
					ack()
				}
				if len(b) < block+4 {
					return got, nil
				}
			case n == have || window > 1:
				ack()
			}
		case opError:
			return got, fmt.Errorf("code %d: %s", binary.BigEndian.Uint16(b[2:]), b[4:len(b)-1])
		}
	}
}

func never() bool { return false }

// A network that loses a tenth does not keep a machine from booting, and the
// number of a block may wrap.
func TestLoss(t *testing.T) {
	tree := files{"f": random(100 * 512), "wrap": random(66000 * 8)}
	s, reports := server(t, Config{Files: tree, Limits: fast()})
	for _, options := range [][]string{nil, {"tsize", "0"}, {"blksize", "1400", "windowsize", "8"}} {
		r := rand.New(rand.NewPCG(1, 2))
		got, err := newMachine(t, s).get("f", func() bool { return r.IntN(10) == 0 }, options...)
		if err != nil || !bytes.Equal(got, tree["f"]) {
			t.Errorf("%v: %d bytes, %v", options, len(got), err)
		}
		_ = report(t, reports) // the last acknowledgement may be lost, which is an error for us
	}
	got, err := newMachine(t, s).get("wrap", never, "blksize", "8", "windowsize", "64")
	if err != nil || !bytes.Equal(got, tree["wrap"]) {
		t.Errorf("wrap: %d bytes, %v", len(got), err)
	}
	if r := report(t, reports); r.Err != nil {
		t.Error(r.Err)
	}
}

// UEFI asks for the size, ends the transfer, and asks again.
func TestProbe(t *testing.T) {
	s, reports := server(t, Config{Files: files{"f": random(5000)}})
	m := newMachine(t, s)
	m.send(rrq(opRead, "f", "octet", "tsize", "0", "blksize", "1468"))
	if got, want := string(m.receive()), "\x00\x06blksize\x001468\x00tsize\x005000\x00"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	m.to = m.from
	m.send([]byte("\x00\x05\x00\x08User aborted the transfer\x00"))
	if r := report(t, reports); r.Err != nil || !r.Probe {
		t.Errorf("%+v", r)
	}
}

// What is refused, and with which code.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, reports := server(t, Config{
		Files: files{"f": random(5000), "short": random(5000)},
		Dynamic: func(client netip.Addr, name string) ([]byte, bool) {
			return []byte(client.String()), name == "pxelinux.cfg/01-52-54-00-00-00-01"
		},
	})
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{rrq(opRead, "none", "octet"), "code 1"},
		{rrq(opRead, "../f", "octet"), "code 1"},
		{rrq(opRead, "f/../f", "octet"), "code 1"},
		{rrq(opRead, "..\\f", "octet"), "code 1"},
		{rrq(opRead, "%2e%2e/f", "octet"), "code 1"},
		{rrq(opRead, secret, "octet"), "code 1"},
		{rrq(opRead, "/etc/passwd", "octet"), "code 1"},
		{rrq(opRead, "../../../../../etc/passwd", "octet"), "code 1"},
		{rrq(opRead, strings.Repeat("a", 300), "octet"), "code 1"},
		{rrq(opRead, strings.Repeat("../", 80), "octet"), "code 1"},
		{[]byte("\x00\x01f\x00.txt\x00octet\x00"), "code 4"},
		{rrq(opWrite, "f", "octet"), "code 2"},
		{rrq(opRead, "f", "netascii"), "code 4"},
		{rrq(opRead, "broken", "octet"), "code 0"},
	} {
		m := newMachine(t, s)
		m.send(c.b)
		b := m.receive()
		if got := fmt.Sprintf("code %d", binary.BigEndian.Uint16(b[2:])); b[1] != opError || got != c.want || b[len(b)-1] != 0 {
			t.Errorf("%.60q: %q, want %s", c.b, b, c.want)
		}
		if r := report(t, reports); r.Err == nil {
			t.Errorf("%.60q: %+v", c.b, r)
		}
	}
	if got, err := newMachine(t, s).get("pxelinux.cfg/01-52-54-00-00-00-01", never); err != nil || string(got) != "127.0.0.1" {
		t.Errorf("dynamic: %q, %v", got, err)
	}
	_ = report(t, reports)
	// A file that ends before its end is no short file.
	if got, err := newMachine(t, s).get("short", never); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("short: %d bytes, %v", len(got), err)
	}
	if r := report(t, reports); !errors.Is(r.Err, io.ErrUnexpectedEOF) {
		t.Errorf("short: %+v", r)
	}
}

// Garbage gets no answer and stops nothing.
func TestGarbage(t *testing.T) {
	s, reports := server(t, Config{Files: files{"f": random(5000)}})
	m := newMachine(t, s)
	for _, b := range [][]byte{{}, {0}, {0, 1}, {0, 3, 0, 1, 9}, {0, 4, 0, 0}, {0, 5, 0, 0, 0}, {0, 6, 'a', 0}, {0xff, 0xff, 0xff, 0xff}, make([]byte, 60000), bytes.Repeat([]byte{0, 1}, 400)} {
		m.send(b)
	}
	if got, err := m.get("f", never); err != nil || len(got) != 5000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_ = report(t, reports)
	// Garbage within a transfer, and of a stranger.
	m = newMachine(t, s)
	m.send(rrq(opRead, "f", "octet"))
	m.receive()
	m.to = m.from
	stranger := newMachine(t, s)
	stranger.to = m.from
	stranger.send([]byte("\x00\x05\x00\x00stop\x00"))
	for _, b := range [][]byte{{}, {0}, {0, 4}, {0, 4, 0, 9}, {0, 3, 0, 1, 1}, make([]byte, 5000)} {
		m.send(b)
	}
	m.second()
}

// Limits hold, of one client and in all, and what ended makes room.
func TestLimits(t *testing.T) {
	s, reports := server(t, Config{Files: files{"f": random(5000)}, Limits: Limits{Transfers: 3, PerClient: 2, Wait: 50 * time.Millisecond, Retries: 200}})
	var all []*machine
	for i := range 2 {
		m := newMachine(t, s)
		m.send(rrq(opRead, "f", "octet"))
		if b := m.receive(); b[1] != opData {
			t.Fatalf("transfer %d: %q", i, b)
		}
		m.send(rrq(opRead, "f", "octet")) // twice from one port is once
		m.second()                        // its address is real
		all = append(all, m)
	}
	m := newMachine(t, s)
	m.send(rrq(opRead, "f", "octet"))
	if b := m.receive(); b[1] != opError || !strings.Contains(string(b), "this machine") {
		t.Errorf("the third: %q", b)
	}
	if r := report(t, reports); r.Err == nil {
		t.Error("a refusal is not reported")
	}
	for i, want := range []byte{opData, opError} {
		other, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(2+i))}, net.UDPAddrFromAddrPort(s.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		_ = other.Close()
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(2+i))})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		o := &machine{t: t, c: c, to: s.Addr()}
		o.send(rrq(opRead, "f", "octet"))
		if b := o.receive(); b[1] != want {
			t.Errorf("client %d: %q", i, b)
		}
		if want == opData {
			o.second()
		}
	}
	_ = report(t, reports)
	all[0].to = all[0].from
	all[0].send([]byte("\x00\x05\x00\x00enough\x00"))
	if r := report(t, reports); r.Err == nil || r.Probe || !strings.Contains(r.Err.Error(), "enough") {
		t.Errorf("%+v", r)
	}
	if got, err := newMachine(t, s).get("f", never); err != nil || len(got) != 5000 {
		t.Errorf("after one ended: %d bytes, %v", len(got), err)
	}
}

// Requests of clients that do not exist take no place from one that does.
func TestFlood(t *testing.T) {
	s, reports := server(t, Config{Files: files{"f": random(5000)}, Limits: Limits{Transfers: 4, Wait: time.Hour}})
	for i := range 200 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 1, byte(1+i))})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }() // open, so that no ICMP tells us
		m := &machine{t: t, c: c, to: s.Addr()}
		m.send(rrq(opRead, "f", "octet"))
		m.receive() // a block, or that the evicted ones have not all ended
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		got, err := newMachine(t, s).get("f", never)
		if err == nil && len(got) == 5000 {
			break
		}
		// The evicted ones may need a moment to end; a machine asks again, too.
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	for r := report(t, reports); r.Err != nil; r = report(t, reports) {
		if !errors.Is(r.Err, errEvicted) && !strings.Contains(r.Err.Error(), "as many transfers") {
			t.Errorf("%+v", r)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.active); n > 4 {
		t.Errorf("%d transfers", n)
	}
}

// A client that says nothing any more is given up, and Close does not wait for
// any of them.
func TestSilent(t *testing.T) {
	s, reports := server(t, Config{Files: files{"f": random(5000)}, Limits: Limits{Wait: 20 * time.Millisecond, Retries: 2}})
	m := newMachine(t, s)
	m.send(rrq(opRead, "f", "octet"))
	if r := report(t, reports); r.Err == nil || !strings.Contains(r.Err.Error(), "did not answer") {
		t.Errorf("%+v", r)
	}
	gone := newMachine(t, s)
	gone.send(rrq(opRead, "f", "octet"))
	_ = gone.c.Close()
	if r := report(t, reports); r.Err == nil {
		t.Errorf("%+v", r)
	}
	slow, reports := server(t, Config{Files: files{"f": random(5000)}, Limits: Limits{Wait: time.Hour}})
	m = newMachine(t, slow)
	m.send(rrq(opRead, "f", "octet"))
	m.receive()
	if err := slow.Close(); err != nil {
		t.Error(err)
	}
	if r := report(t, reports); !errors.Is(r.Err, errEnded) {
		t.Errorf("%+v", r)
	}
}

// FuzzRequest throws packets at a server that runs; it must go on.
func FuzzRequest(f *testing.F) {
	f.Add(rrq(1, "f", "octet"), []byte{0, 4, 0, 1})
	f.Add(rrq(1, "f", "octet", "tsize", "0"), []byte{0, 5, 0, 0, 0})
	s, _ := server(f, Config{Files: files{"f": random(600)}, Limits: Limits{Wait: time.Millisecond, Retries: 1, PerClient: 64}, Log: func(Transfer) {}})
	f.Fuzz(func(t *testing.T, b, next []byte) {
		if len(b) > 2000 || len(next) > 2000 {
			return
		}
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Skip(err)
		}
		defer func() { _ = c.Close() }()
		_, _ = c.WriteToUDPAddrPort(b, s.Addr())
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Millisecond))
		buf := make([]byte, 2000)
		if n, from, err := c.ReadFromUDPAddrPort(buf); err == nil && n > 0 {
			_, _ = c.WriteToUDPAddrPort(next, from)
		}
	})
}
