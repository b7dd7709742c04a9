package httpboot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files is a tree: contents are paths of files of this machine.
type files map[string]string

type info struct {
	fs.FileInfo
	name string
	sum  [sha256.Size]byte
}

func (i info) Name() string       { return i.name }
func (i info) ModTime() time.Time { return time.Unix(1000, 0) }
func (i info) Sys() any           { return i.sum }

func (f files) Open(name string) (io.ReadSeekCloser, fs.FileInfo, error) {
	path, ok := f[name]
	switch {
	case name == "broken":
		return nil, nil, errors.New("the file was changed after it was checked")
	case !ok:
		return nil, nil, fs.ErrNotExist
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	st, err := file.Stat()
	return file, info{st, name, sha256.Sum256([]byte(path))}, err
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func file(t testing.TB, data []byte) string {
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// echo answers below v1/.
func echo(_ context.Context, r Request) (Response, bool) {
	switch r.Path {
	case "v1/echo":
		return Response{Body: append([]byte(r.Method+" "+r.Query.Get("mac")+" "), r.Body...)}, true
	case "v1/denied":
		return Response{Status: http.StatusForbidden, Type: "text/x-reason", Body: []byte("not approved")}, true
	}
	return Response{}, false
}

// server starts one on loopback; its reports come by the channel.
func server(t testing.TB, cfg Config) (*Server, <-chan Access) {
	reports := make(chan Access, 10000)
	if cfg.Log == nil {
		cfg.Log = func(a Access) { reports <- a }
	}
	if cfg.Dynamic == nil {
		cfg.Dynamic = echo
	}
	l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	s := New(l, cfg)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, reports
}

func report(t testing.TB, reports <-chan Access) Access {
	t.Helper()
	select {
	case r := <-reports:
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("no report")
		return Access{}
	}
}

// client is one that keeps up to n connections.
func client(t testing.TB, n int) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: n, MaxConnsPerHost: n, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 60 * time.Second}
}

// do makes a request and reads the body. headers are names and values.
func do(t testing.TB, c *http.Client, s *Server, method, path string, body []byte, headers ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+s.Addr().String()+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

// raw sends bytes on a connection and returns the status line of the answer, or
// "" when the server only closed it.
func raw(t testing.TB, s *Server, request string) string {
	t.Helper()
	c := dial(t, s)
	_, _ = io.WriteString(c, request) // the server may have closed it by then
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}

func dial(t testing.TB, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}
