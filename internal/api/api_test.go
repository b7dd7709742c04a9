package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ssi/internal/errno"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves s on a socket of the test and points the clients at it.
func start(t *testing.T, s *Server) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		_ = l.Close()
	})
	t.Setenv(SocketEnv, path)
}

func dial(t *testing.T) *Client {
	t.Helper()
	c, err := Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

type echo struct {
	N    int
	Text string
}

func testServer() *Server {
	s := NewServer(slog.New(slog.DiscardHandler))
	s.Handle("test.Echo", func(_ context.Context, c *Call) error {
		var e echo
		if err := c.Params(&e); err != nil {
			return err
		}
		return c.Reply(e)
	})
	s.Handle("test.Fail", func(context.Context, *Call) error {
		return errno.New(errno.NoQuorum, "put", 3, "cannot decide")
	})
	s.Handle("test.Who", func(_ context.Context, c *Call) error { return c.Reply(c.Peer) })
	s.Handle("test.Count", func(_ context.Context, c *Call) error {
		var e echo
		if err := c.Params(&e); err != nil {
			return err
		}
		for i := range e.N {
			if err := c.Send(echo{N: i}); err != nil {
				return err
			}
		}
		return nil
	})
	s.Handle("test.Forever", func(ctx context.Context, c *Call) error {
		if err := c.Send(echo{}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	s.Handle("test.Upgrade", func(_ context.Context, c *Call) error {
		conn, err := c.Upgrade(echo{Text: "go on"})
		if err != nil {
			return err
		}
		_, err = io.Copy(conn, conn)
		return err
	})
	return s
}

func TestCalls(t *testing.T) {
	start(t, testServer())
	c := dial(t)
	for i := range 3 { // several calls on one connection
		var got echo
		if err := c.Call(t.Context(), "test.Echo", echo{N: i, Text: "x\x00y"}, &got); err != nil || got.N != i || got.Text != "x\x00y" {
			t.Fatalf("echo %d: %+v, %v", i, got, err)
		}
	}
	err := c.Call(t.Context(), "test.Fail", nil, nil)
	var e *errno.Error
	if !errors.As(err, &e) || e.Kind != errno.NoQuorum || e.Node != 3 || err.Error() != "put: node 3: cannot decide" {
		t.Errorf("failure came back as %v", err)
	}
	if err := c.Call(t.Context(), "test.Nothing", nil, nil); !errno.Is(err, errno.NotFound) {
		t.Errorf("unknown method: %v", err)
	}
	if err := c.Call(t.Context(), "test.Echo", []int{1}, nil); !errno.Is(err, errno.Invalid) {
		t.Errorf("wrong parameters: %v", err)
	}
	var who Peer
	if err := c.Call(t.Context(), "test.Who", nil, &who); err != nil || who.PID != int32(os.Getpid()) || who.UID != uint32(os.Getuid()) {
		t.Errorf("peer: %+v, %v", who, err)
	}
}

func TestStream(t *testing.T) {
	start(t, testServer())
	next := 0
	err := dial(t).Stream(t.Context(), "test.Count", echo{N: 100}, func(raw json.RawMessage) error {
		var e echo
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		if e.N != next {
			t.Errorf("got %d, want %d", e.N, next)
		}
		next++
		return nil
	})
	if err != nil || next != 100 {
		t.Errorf("%d replies, %v", next, err)
	}
	if err := dial(t).Call(t.Context(), "test.Count", echo{N: 1}, nil); !errno.Is(err, errno.Invalid) {
		t.Errorf("stream without more: %v", err)
	}
}

// A stream whose reader goes away, or whose server closes, ends: goleak and
// Close would hang otherwise.
func TestStreamEnds(t *testing.T) {
	start(t, testServer())
	ctx, cancel := context.WithCancel(t.Context())
	err := dial(t).Stream(ctx, "test.Forever", nil, func(json.RawMessage) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled stream: %v", err)
	}
	got := make(chan struct{})
	ended := make(chan error, 1)
	c := dial(t)
	go func() {
		ended <- c.Stream(t.Context(), "test.Forever", nil, func(json.RawMessage) error { close(got); return nil })
	}()
	<-got
	// The clean-up of start closes the server under the second stream.
	t.Cleanup(func() {
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("stream outlived its server")
		}
	})
}

func TestUpgrade(t *testing.T) {
	start(t, testServer())
	var hello echo
	conn, err := dial(t).Upgrade(t.Context(), "test.Upgrade", nil, &hello)
	if err != nil || hello.Text != "go on" {
		t.Fatalf("%+v, %v", hello, err)
	}
	if _, err := conn.Write([]byte("raw bytes")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 9)
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "raw bytes" {
		t.Errorf("%q, %v", buf, err)
	}
	if err := dial(t).Call(t.Context(), "test.Upgrade", nil, nil); !errno.Is(err, errno.Invalid) {
		t.Errorf("upgrade not asked for: %v", err)
	}
}

func TestNoDaemon(t *testing.T) {
	t.Setenv(SocketEnv, filepath.Join(t.TempDir(), "none"))
	_, err := Dial(t.Context())
	if !errno.Is(err, errno.Unavailable) || !strings.Contains(err.Error(), "ssi cluster join") {
		t.Errorf("err = %v", err)
	}
}

// FuzzReadMessage feeds the decoder what a hostile local process may send.
func FuzzReadMessage(f *testing.F) {
	f.Add([]byte("{\"method\":\"a.b\"}\x00"))
	f.Add([]byte("{\"parameters\":{\"x\":[1,2]},\"more\":true}\x00{"))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for range len(b) + 1 {
			var c call
			if err := readMessage(r, &c); err != nil {
				return
			}
		}
		t.Fatal("the decoder consumes nothing")
	})
}
