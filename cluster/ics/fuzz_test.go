package ics

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

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

func FuzzRequest(f *testing.F) {
	f.Add(request{deadline: 1, incarnation: 2, epoch: 3, to: 4, method: "a.B/C", payload: []byte("x")}.append(nil))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err == nil && !bytes.Equal(r.append(nil), b) {
			t.Fatalf("%x is read as %+v", b, r)
		}
		if n, err := decodeCredit(b); err == nil && (n < 0 || n > callWindow) {
			t.Fatalf("credit %d", n)
		}
	})
}

func FuzzCallError(f *testing.F) {
	b, err := proto.Marshal(toWire(errno.New(errno.Full, "op", 7, "no"), 2))
	must(f, err)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if e := fromWire(b, 2); strings.ContainsAny(e.Error(), "\n\x1b") || uint32(e.Kind) > 255 {
			t.Fatalf("%q", e.Error())
		}
	})
}

// framesOf cuts fuzzed bytes into frames: a byte of kind, one of number, one of
// length, and so much of body.
func framesOf(b []byte) (frames [][]byte) {
	for len(b) >= 3 {
		n := min(int(b[2]), len(b)-3)
		frames = append(frames, append(startFrame(nil, b[0], uint64(b[1]))[4:], b[3:3+n]...))
		b = b[3+n:]
	}
	return frames
}

// FuzzServedFrames is a member that sends what it likes to the server of calls.
func FuzzServedFrames(f *testing.F) {
	tn := newNet(f, 1)
	req := request{deadline: 50, method: "test.Echo/Unary", payload: []byte{10, 1, 'x'}}.append(nil)
	f.Add(append([]byte{kindRequest, 1, byte(len(req))}, req...))
	f.Add([]byte{kindCancel, 1, 0, kindCredit, 1, 4, 0, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far, err := tn.nodes[1].selfPair(protoICS)
		must(t, err)
		ended := make(chan struct{})
		go func() { defer close(ended); tn.nodes[1].serveCalls(far) }()
		for _, fr := range framesOf(b) {
			whole := append(make([]byte, 4), fr...)
			endFrame(whole)
			if _, err := near.Write(whole); err != nil {
				break
			}
		}
		near.abort(nil)
		within(t, "end of the connection and its handlers", ended)
	})
}

// FuzzAnswers is a server that answers what it likes.
func FuzzAnswers(f *testing.F) {
	tn := newNet(f, 1)
	node := tn.nodes[1]
	f.Add([]byte{kindReply, 1, 2, 10, 0, kindItem, 2, 1, 0, kindError, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far, err := node.selfPair(protoICS)
		must(t, err)
		defer far.abort(nil)
		defer near.abort(nil)
		cc := newClientConn(&link{p: node.peerOf(1)}, near)
		near.own(true, nil, cc.end)
		unary, _ := cc.begin(false)
		stream, _ := cc.begin(true)
		for _, fr := range framesOf(b) {
			if err := cc.take(fr); err != nil {
				near.abort(err)
				break
			}
			if len(unary.items) > 0 || len(stream.items) > 64+1 {
				t.Fatalf("%d and %d items are kept", len(unary.items), len(stream.items))
			}
		}
		cc.forget(unary)
		cc.forget(stream)
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
