package machine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ssi/internal/api"
	"ssi/internal/config"
)

// serve is the HTTP server of an admission, on loopback.
func serve(t *testing.T, a *Admission) string {
	t.Helper()
	s := httptest.NewServer(handler(t, a))
	t.Cleanup(s.Close)
	return s.URL
}

// handler is an admission behind HTTP.
func handler(t *testing.T, a *Admission) http.Handler {
	answer := func(f func(context.Context, netip.Addr, []byte) (int, []byte)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
			if err != nil {
				t.Error(err)
			}
			status, reply := f(r.Context(), netip.MustParseAddrPort(r.RemoteAddr).Addr(), body)
			w.WriteHeader(status)
			_, _ = w.Write(reply)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+PathAdmit, answer(a.Admit))
	mux.HandleFunc("POST "+PathProgress, answer(a.Progress))
	return mux
}

// console collects what a machine says.
type console struct {
	mu    sync.Mutex
	lines []string
}

func (c *console) say(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, text)
}

func (c *console) has(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(strings.Join(c.lines, "\n"), text)
}

// An unknown machine waits on its console, is approved, and gets a join file;
// asked again, for example because the token expired, it gets another one.
func TestJoin(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	url := serve(t, w.adm)
	at := "127.0.0.1"
	var c console
	dir := filepath.Join(t.TempDir(), "state")
	type result struct {
		file []byte
		err  error
	}
	done := make(chan result, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	wg.Go(func() {
		file, err := Join(ctx, dir, url, mac(5).String(), c.say)
		done <- result{file, err}
	})
	w.until("it waits on its console", func() bool { return c.has("on any node: ssi node approve 52:54:00:00:00:05") })
	w.settled()
	w.booted(mac(5), at)
	if _, err := w.table.Approve(ctx, mac(5).String(), api.MachineChange{}); err != nil {
		t.Fatal(err)
	}
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	join, err := config.ParseJoin("x", string(r.file))
	if err != nil || join.Token != "ssi1-secret1" || len(join.Addrs) != 1 {
		t.Errorf("got %q, %v", r.file, err)
	}
	if info, err := os.Stat(filepath.Join(dir, FileKey)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	if err := Report(ctx, url, mac(5).String(), "join", "starting"); err != nil {
		t.Error(err)
	}
	if m := w.info(mac(5).String()); m.Phase != "join" || m.Text != "starting" {
		t.Errorf("got %+v", m)
	}
	if err := Report(ctx, url, mac(6).String(), "join", ""); err == nil || !strings.Contains(err.Error(), "HTTP status 403") {
		t.Errorf("of another machine: %v", err)
	}

	w.clock.forward(CredentialTTL)
	if file, err := Join(ctx, dir, url, mac(5).String(), c.say); err != nil || !strings.HasPrefix(string(file), "ssi1-secret2") {
		t.Errorf("again: %q, %v", file, err)
	}
	// Without the key of this boot it is another machine.
	if _, err := Join(ctx, t.TempDir(), url, mac(5).String(), c.say); !errors.Is(err, ErrDenied) {
		t.Errorf("with another key: %v", err)
	}
	w.clock.forward(RenewWindow + time.Second)
	if _, err := Join(ctx, dir, url, mac(5).String(), c.say); !errors.Is(err, ErrBootAgain) {
		t.Errorf("much later: %v", err)
	}
}

// No answer, and answers that make no sense, are reasons to try again, each with a
// clear text.
func TestJoinTriesAgain(t *testing.T) {
	good := mustBody(answer{State: stateWait, Why: "the end of the test"})
	for _, c := range []struct {
		name, text string
		reply      func(http.ResponseWriter)
	}{
		{"garbage", "is no cluster: malformed answer", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") }},
		{"unknown state", `is no cluster: malformed answer: state "hello"`, func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"state":"hello"}`) }},
		{"endless", "an answer of more than", func(w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat("x", 2*maxReply)) }},
		{"redirect", "is no cluster", func(w http.ResponseWriter) { w.Header().Set("Location", "http://192.0.2.1/"); w.WriteHeader(302) }},
		{"not sealed", "is for another machine", func(w http.ResponseWriter) { _, _ = w.Write(mustBody(answer{State: stateAdmitted})) }},
		{"sealed for another", "is for another machine", func(w http.ResponseWriter) {
			other := joinerOf(t, mac(1))
			sealed, err := seal(request{MAC: mac(1), Boot: other.boot, Key: other.key.PublicKey().Bytes()}, []byte("ssi1-x\n"))
			if err != nil {
				t.Error(err)
			}
			_, _ = w.Write(mustBody(answer{State: stateAdmitted, Sealed: sealed}))
		}},
		{"cut off", "does not answer", func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			tries := 0
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				tries++
				first := tries == 1
				mu.Unlock()
				if first {
					c.reply(w)
				} else {
					_, _ = w.Write(good)
				}
			}))
			defer s.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			var con console
			j := joinerOf(t, mac(1))
			j.url, j.say = s.URL, func(text string) {
				con.say(text)
				if text == "the end of the test" {
					cancel(errors.New("enough"))
				}
			}
			j.pause = func(ctx context.Context, d time.Duration) error {
				if d > lastPause {
					t.Errorf("a pause of %v", d)
				}
				return context.Cause(ctx)
			}
			_, err := j.run(ctx)
			j.http.CloseIdleConnections()
			if err == nil || err.Error() != "join: the end of the test: enough" {
				t.Errorf("ended with %v", err)
			}
			if !con.has(c.text) {
				t.Errorf("the console says %q, want %q", con.lines, c.text)
			}
		})
	}
}

func TestBootKey(t *testing.T) {
	dir := t.TempDir()
	first, err := bootKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := bootKey(dir)
	if err != nil || string(again.PublicKey().Bytes()) != string(first.PublicKey().Bytes()) {
		t.Errorf("another key: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileKey), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if k, err := bootKey(dir); err != nil || string(k.PublicKey().Bytes()) == string(first.PublicKey().Bytes()) {
		t.Errorf("a damaged file: %v", err)
	}
	if _, err := bootKey(filepath.Join(dir, FileKey, "x")); err == nil {
		t.Error("no directory, and a key")
	}
	if _, err := Join(t.Context(), dir, "http://127.0.0.1:1", "x", nil); err == nil || !strings.Contains(err.Error(), "is no MAC") {
		t.Errorf("a bad MAC: %v", err)
	}
}
