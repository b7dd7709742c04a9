package rexec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/proc"
)

func sample(term bool) *request {
	r := &request{spec: proc.Spec{Argv: []string{"vi", ""}, Env: []string{"A=b"}, Dir: "/tmp", UID: 7}, files: splitStderr}
	if term {
		cc := make([]byte, 19)
		cc[4] = 4
		r.term = &api.Term{Iflag: 1, Oflag: 2, Cflag: 3, Lflag: 4, Cc: cc, Rows: 5, Cols: 6}
		r.spec.Session = true
	}
	return r
}

func TestRequestSurvivesTheWire(t *testing.T) {
	for _, r := range []*request{sample(false), sample(true)} {
		b, err := r.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readRequest(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, got, cmp.AllowUnexported(request{})); d != "" {
			t.Error(d)
		}
		for i := range b {
			if _, err := readRequest(bytes.NewReader(b[:i])); err == nil {
				t.Errorf("%d of %d bytes were accepted", i, len(b))
			}
		}
	}
	r := sample(true)
	r.spec.Session = false // a terminal without a leader
	b, err := r.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readRequest(bytes.NewReader(b)); err == nil {
		t.Error("a terminal without a session was accepted")
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	sizes := []int{0, 1, 600, 5000, maxData}
	for _, n := range sizes {
		b.Write(frame(kindStdout, bytes.Repeat([]byte{byte(n)}, n)...))
	}
	whole := bytes.Clone(b.Bytes())
	r := frameReader{r: &b}
	var again []byte
	for _, n := range sizes {
		k, data, err := r.next()
		if err != nil || k != kindStdout || len(data) != n {
			t.Fatalf("%d: kind %d, %d bytes, %v", n, k, len(data), err)
		}
		again = append(again, r.whole()...)
	}
	if _, _, err := r.next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if !bytes.Equal(whole, again) {
		t.Error("frames changed on the way")
	}
	for _, bad := range [][]byte{{0, 0, 0, 0}, {200, 0, 0, 0}, {byte(kindStdin), 2, 0, 1}} {
		if _, _, err := (&frameReader{r: bytes.NewReader(bad)}).next(); !errors.Is(err, errFrame) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestFailureOnTheWire(t *testing.T) {
	f := lost(errno.Fenced, 3, "evil\x1b[2J\ntext")
	got, err := decodeFailure(f.frame()[headSize:])
	if err != nil || got.Status != 255 || got.Err.Kind != errno.Fenced || got.Error() != "node 3: evil [2J text" {
		t.Errorf("%v, %v", got, err)
	}
	if f := lost(errno.Other, 1, "%s", strings.Repeat("x", 2*maxText)); len(f.frame()) != headSize+4+maxText {
		t.Errorf("%d bytes", len(f.frame()))
	}
}

func TestParseLimits(t *testing.T) {
	b, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	list, err := parseLimits(string(b))
	if err != nil || len(list) != unix.RLIMIT_RTTIME+1 {
		t.Fatalf("%d limits, %v", len(list), err)
	}
	for _, l := range list {
		var want unix.Rlimit
		if err := unix.Getrlimit(int(l.Resource), &want); err != nil || want.Cur != l.Cur || want.Max != l.Max {
			t.Errorf("limit %d: %v, want %v, %v", l.Resource, l, want, err)
		}
	}
	if _, err := parseLimits("heading\nshort\n"); err == nil {
		t.Error("another layout was accepted")
	}
}

func TestInputQueue(t *testing.T) {
	q := newQueue()
	if !q.put(make([]byte, stdinWindow)) || q.put([]byte{1}) {
		t.Error("the window is not kept")
	}
	data, end := q.take()
	if len(data) != stdinWindow || end || q.put([]byte{1}) {
		t.Error("what is being written does not count")
	}
	q.done(len(data))
	if !q.put([]byte("x")) {
		t.Error("no room after all was written")
	}
	q.end()
	if data, end = q.take(); string(data) != "x" || !end {
		t.Errorf("%q %v", data, end)
	}
	q.close()
	if data, end = q.take(); data != nil || !end {
		t.Error("open after close")
	}
}

// TestHungUpCallerLeavesNothing speaks to a server whose spawn role never
// answers.
func TestHungUpCallerLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := NewServer(Config{Node: 1, Spawn: deadSpawner{}, RunDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	header, err := sample(false).append(nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { defer close(done); s.HandleBulk(ctx, 2, header[4:], far) }()
	cancel() // the caller's node is gone
	_ = near.SetDeadline(time.Now().Add(10 * time.Second))
	k, data, err := (&frameReader{r: near}).next()
	if err != nil || k != kindError {
		t.Fatalf("kind %d, %v", k, err)
	}
	if f, err := decodeFailure(data); err != nil || f.Status != 255 {
		t.Errorf("%v, %v", f, err)
	}
	_ = near.Close()
	<-done
	s.Close()
	near, far = net.Pipe()
	go s.HandleBulk(context.Background(), 2, header[4:], far)
	_ = near.SetDeadline(time.Now().Add(10 * time.Second))
	if k, data, err = (&frameReader{r: near}).next(); err != nil || k != kindError || !bytes.Contains(data, []byte("shutting down")) {
		t.Errorf("after Close: kind %d, %q, %v", k, data, err)
	}
	_ = near.Close()
}

type deadSpawner struct{}

func (deadSpawner) Spawn(ctx context.Context, _ *proc.Spec, _ []*os.File) (int32, *os.File, error) {
	<-ctx.Done()
	return 0, nil, ctx.Err()
}

func FuzzRequest(f *testing.F) {
	for _, term := range []bool{false, true} {
		b, err := sample(term).append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[4:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		again, err := r.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeRequest(again[4:])
		if err != nil || !cmp.Equal(r, got, cmp.AllowUnexported(request{})) {
			t.Fatal(err)
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add(append(frame(kindStdout, 1, 2), frame(kindExit, 1, 2, 3)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := frameReader{r: bytes.NewReader(b)}
		for {
			k, data, err := r.next()
			if err != nil {
				return
			}
			if len(data) > maxData || len(r.whole()) != headSize+len(data) {
				t.Fatalf("kind %d, %d bytes", k, len(data))
			}
			if k == kindError {
				if f, err := decodeFailure(data); err == nil && strings.ContainsAny(f.Error(), "\x1b\n\x7f") {
					t.Fatalf("%q", f.Error())
				}
			}
		}
	})
}
