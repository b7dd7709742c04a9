package httpboot

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Malformed requests end with an error or a closed connection, and the server
// goes on.
func TestMalformed(t *testing.T) {
	s, _ := server(t, Config{Files: files{"f": file(t, []byte("x"))}, Limits: Limits{Header: time.Second}})
	for _, request := range []string{
		"", "\r\n\r\n", "GET\r\n\r\n", "GET /f\r\n\r\n", "GET /f HTTP/9.9\r\n\r\n", "GET /f HTTP/1.1\r\n\r\n", "GET f HTTP/1.1\r\nHost: x\r\n\r\n", "GET  /f HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /f HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", "GET /f\x00 HTTP/1.1\r\nHost: x\r\n\r\n", "GET * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", strings.Repeat("\xff", 5000),
		"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello", "POST /v1/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", "GET /f HTTP/1.1\r\nHost: x\r\n a: folded\r\n\r\n", "GET /f HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
		"GET /f HTTP/1.1\r\nHost: x\r\nRange: bytes=0-\r\nRange: bytes=1-\r\n\r\n",
	} {
		got := raw(t, s, request)
		if got != "" && !strings.HasPrefix(got, "HTTP/1.1 4") && !strings.HasPrefix(got, "HTTP/1.1 5") {
			t.Errorf("%.60q: %q", request, got)
		}
	}
	for _, big := range []string{"X: " + strings.Repeat("a", 2*MaxHeader), strings.Repeat("a: b\r\n", MaxHeader)} {
		if got := raw(t, s, "GET /f HTTP/1.1\r\nHost: x\r\n"+big+"\r\n\r\n"); got != "" && got != "HTTP/1.1 431 Request Header Fields Too Large" {
			t.Errorf("a big header: %q", got)
		}
	}
	if got := raw(t, s, "GET /f HTTP/1.0\r\n\r\n"); got != "HTTP/1.0 200 OK" {
		t.Errorf("after all that: %q", got)
	}
}

// closed waits until the server closed a connection.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection is still open: %v", err)
	}
}

// Clients that send or take byte by byte, or nothing, are cut off.
func TestSlow(t *testing.T) {
	data := random(40 << 20) // more than the buffers of two sockets
	s, reports := server(t, Config{Files: files{"f": file(t, data)}, Limits: Limits{Header: 200 * time.Millisecond, Idle: 200 * time.Millisecond, Chunk: 200 * time.Millisecond}})
	closed(t, dial(t, s)) // says nothing
	half := dial(t, s)
	_, _ = io.WriteString(half, "GET /f HTTP/1.1\r\nHost: x\r\nX: ")
	closed(t, half)
	drip := dial(t, s) // slowloris: always something, never all
	for begun := time.Now(); time.Since(begun) < 20*time.Second; {
		if _, err := io.WriteString(drip, "GET /f HTTP/1.1\r\nHost: x\r\n"[:1]); err != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	closed(t, drip)
	body := dial(t, s)
	_, _ = io.WriteString(body, "POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
	closed(t, body)
	if a := report(t, reports); a.Status != 400 {
		t.Errorf("half a message: %+v", a)
	}
	idle := dial(t, s)
	_, _ = io.WriteString(idle, "GET /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n")
	closed(t, idle)
	_ = report(t, reports)
	reader := dial(t, s)
	_, _ = io.WriteString(reader, "GET /f HTTP/1.1\r\nHost: x\r\n\r\n") // and takes nothing
	if a := report(t, reports); a.Bytes >= a.Size || a.Size != int64(len(data)) {
		t.Errorf("one that takes nothing: %+v", a)
	}
}

// A file that takes longer than a header may is sent to its end, and the
// connection is kept.
func TestLong(t *testing.T) {
	data := random(40 << 20)
	s, reports := server(t, Config{Files: files{"f": file(t, data)}, Limits: Limits{Header: 100 * time.Millisecond, Idle: time.Minute, Chunk: time.Minute}})
	c := dial(t, s)
	_, _ = io.WriteString(c, "GET /f HTTP/1.1\r\nHost: x\r\n\r\n")
	begun := time.Now()
	for time.Since(begun) < 400*time.Millisecond { // take it slowly
		if _, err := io.CopyN(io.Discard, c, 1000); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	done := make(chan Access)
	go func() { done <- report(t, reports) }()
	go func() { _, _ = io.Copy(io.Discard, c) }()
	if a := <-done; a.Bytes != int64(len(data)) || a.Duration < 400*time.Millisecond {
		t.Errorf("%+v", a)
	}
	_, _ = io.WriteString(c, "GET /v1/echo HTTP/1.1\r\nHost: x\r\n\r\n")
	if a := report(t, reports); a.Status != 200 || a.Path != "/v1/echo" {
		t.Errorf("the next request: %+v", a)
	}
	_ = c.Close()
}

// Limits of connections hold, and one that is closed makes room.
func TestConnections(t *testing.T) {
	refused := make(chan netip.Addr, 100)
	s, _ := server(t, Config{
		Files: files{"f": file(t, []byte("x"))}, Limits: Limits{Connections: 3, PerClient: 2},
		Refused: func(a netip.Addr) { refused <- a },
	})
	first, second := dial(t, s), dial(t, s)
	third := dial(t, s)
	closed(t, third)
	if a := <-refused; !a.IsLoopback() {
		t.Errorf("refused %s", a)
	}
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	a, err := other.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	b, err := other.Dial("tcp", s.Addr().String()) // the fourth in all
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if got := <-refused; got != netip.MustParseAddr("127.0.0.2") {
		t.Errorf("refused %s", got)
	}
	_ = first.Close()
	_ = a.Close()
	deadline := time.Now().Add(20 * time.Second)
	for raw(t, s, "GET /f HTTP/1.0\r\n\r\n") != "HTTP/1.0 200 OK" { // until the server saw it
		if time.Now().After(deadline) {
			t.Fatal("a closed connection makes no room")
		}
		time.Sleep(time.Millisecond)
	}
	_ = second.Close()
}

// Close ends what runs.
func TestClose(t *testing.T) {
	s, reports := server(t, Config{Files: files{"f": file(t, random(40<<20))}})
	c := dial(t, s)
	_, _ = io.WriteString(c, "GET /f HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := io.CopyN(io.Discard, c, 1000); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if a := report(t, reports); a.Bytes >= a.Size {
		t.Errorf("%+v", a)
	}
}

// FuzzHTTP throws bytes at a server that runs; it must go on.
func FuzzHTTP(f *testing.F) {
	for _, b := range []string{"GET /f HTTP/1.1\r\nHost: x\r\nRange: bytes=0-,1-2\r\n\r\n", "POST /v1/echo?mac=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "HEAD /%2e%2e HTTP/1.0\r\n\r\n"} {
		f.Add([]byte(b))
	}
	s, _ := server(f, Config{
		Files: files{"f": file(f, random(3000))}, Limits: Limits{PerClient: 200, Header: time.Second},
		Log: func(a Access) {
			if len(a.Path) > MaxPath || a.Status < 100 || a.Status > 599 {
				panic("a report that cannot be")
			}
		},
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Skip(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write(b)
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<16))
	})
}
