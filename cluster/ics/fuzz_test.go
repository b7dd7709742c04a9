package ics

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"ssi/internal/errno"
)

func FuzzHello(f *testing.F) {
	f.Add(hello{incarnation: 1, epoch: 2, to: 3, name: "x", header: []byte("head")}.encode()[4:])
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err != nil {
			return
		}
		if len(h.name) > MaxBulkName || len(h.header) > MaxBulkHeader {
			t.Fatalf("accepted %d bytes of name, %d of header", len(h.name), len(h.header))
		}
		if again := h.encode()[4:]; !bytes.HasPrefix(b, again) {
			t.Fatalf("%x is read as what is written %x", b, again)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add(reply{incarnation: 7}.encode()[4:])
	f.Add(reply{refusal: &errno.Error{Kind: errno.Full, Text: "no"}}.encode()[4:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeReply(b, 2)
		if err == nil && r.refusal != nil && strings.ContainsAny(r.refusal.Text, "\n\x1b") {
			t.Fatalf("text with control characters: %q", r.refusal.Text)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 'x', 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		total := 0
		for {
			msg, err := readFrame(r, 1<<16)
			if err != nil {
				break
			}
			total += 4 + len(msg)
		}
		if total > len(b) {
			t.Fatalf("%d bytes made of %d", total, len(b))
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(formatHeader(1, 2, 3))
	f.Add("--")
	f.Fuzz(func(t *testing.T, s string) {
		self, epoch, to, err := parseHeader(s)
		if err != nil {
			return
		}
		a, b, c, err := parseHeader(formatHeader(self, epoch, to))
		if err != nil || a != self || b != epoch || c != to {
			t.Fatalf("%q does not survive", s)
		}
	})
}

// FuzzBeforeAuthentication sends bytes to the port: the node survives, answers
// with an alert at most and keeps nothing of the connection.
func FuzzBeforeAuthentication(f *testing.F) {
	tn := newNet(f)
	node := tn.start(1, func(c *Config) { c.Limits.Handshake = 200 * time.Millisecond })
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 3})
	f.Add(clientHello(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := net.Dial("tcp", node.addr)
		must(t, err)
		defer raw.Close()
		must(t, raw.SetDeadline(time.Now().Add(patience)))
		_, _ = raw.Write(b)                               // the node may hang up in the middle
		_ = raw.(*net.TCPConn).CloseWrite()               // likewise
		got, _ := io.ReadAll(raw)                         // ends by EOF or reset
		if len(got) > 0 && got[0] != 21 && got[0] != 22 { // TLS alert or handshake
			t.Fatalf("answered %q", got)
		}
		eventually(t, "end of the connection", func() bool { return len(node.connsWhere(func(*conn) bool { return true })) == 0 })
	})
}

// clientHello is what a real client sends first.
func clientHello(t testing.TB) []byte {
	a, b := net.Pipe()
	defer a.Close()
	got := make(chan []byte, 1)
	go func() {
		buf := make([]byte, 16<<10)
		n, _ := b.Read(buf)
		_ = b.Close()
		got <- buf[:n]
	}()
	_ = tls.Client(a, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protoICS}}).Handshake() // the other end hangs up
	return within(t, "client hello", got)
}
