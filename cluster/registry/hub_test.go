package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"ssi/internal/errno"
)

func next(t *testing.T, w *Watch) ([]string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	events, err := w.Next(ctx)
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprintf("%d%s", e.Revision, e.Key))
	}
	return out, err
}

func TestEvents(t *testing.T) {
	s := NewStore()
	put(t, s, "/a", "1")                                                                            // 1
	do(t, s, txn(t, nil, PutOp("/b", nil, 0), PutOp("/c", nil, 0), DeleteOp("/a"), DeleteOp("/x"))) // 2
	put(t, s, "/d", "1")                                                                            // 3
	for _, c := range []struct {
		after uint64
		max   int
		want  string
	}{
		{0, 0, "[1/a 2/b 2/c 2/a 3/d]"}, {1, 0, "[2/b 2/c 2/a 3/d]"}, {3, 0, "[]"},
		{0, 2, "[1/a]"}, {0, 3, "[1/a]"}, {0, 4, "[1/a 2/b 2/c 2/a]"}, {1, 1, "[2/b 2/c 2/a]"}, {2, 1, "[3/d]"},
	} {
		events, err := s.View().Events(c.after, c.max)
		got := []string{}
		for _, e := range events {
			got = append(got, fmt.Sprintf("%d%s", e.Revision, e.Key))
		}
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("Events(%d, %d) = %v, %v; want %s", c.after, c.max, got, err, c.want)
		}
	}
	if _, err := s.View().Events(4, 0); !errno.Is(err, errno.Invalid) {
		t.Error(err)
	}
	if _, err := restored(t, s).View().Events(2, 0); !errno.Is(err, errno.Stale) {
		t.Error(err)
	}
	if ev, err := restored(t, s).View().Events(3, 0); err != nil || len(ev) != 0 {
		t.Error(ev, err)
	}
}

func TestEventsAreBounded(t *testing.T) {
	s := NewStore()
	for range MaxEvents + 10 {
		put(t, s, "/k", "v")
	}
	if n := len(s.now.log.events); n != MaxEvents {
		t.Errorf("%d events are kept", n)
	}
	if _, err := s.View().Events(9, 0); !errno.Is(err, errno.Stale) {
		t.Error(err)
	}
	if ev, err := s.View().Events(10, 0); err != nil || len(ev) != MaxEvents {
		t.Error(len(ev), err)
	}
	for range 2 * MaxEventBytes / MaxValue {
		put(t, s, "/k", string(make([]byte, MaxValue)))
	}
	if b := s.now.log.bytes; b > MaxEventBytes {
		t.Errorf("%d bytes of events are kept", b)
	}
}

func TestWatch(t *testing.T) {
	s := NewStore()
	put(t, s, "/a/1", "")
	h := NewHub(s.View())
	put(t, s, "/a/2", "")
	h.Publish(s.View())
	w, err := h.Watch("/a", 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := next(t, w); err != nil || !slices.Equal(got, []string{"2/a/2"}) {
		t.Fatal(got, err)
	}
	ready := make(chan []string)
	go func() {
		got, _ := next(t, w)
		ready <- got
	}()
	put(t, s, "/b", "") // does not concern the watch
	h.Publish(s.View())
	do(t, s, txn(t, nil, PutOp("/a/3", nil, 0), PutOp("/b", nil, 0), DeleteOp("/a/1")))
	h.Publish(s.View())
	if got := <-ready; !slices.Equal(got, []string{"4/a/3", "4/a/1"}) {
		t.Error(got)
	}

	// A store that jumped ahead by a snapshot.
	put(t, s, "/a/9", "")
	h.Publish(restored(t, s).View())
	if _, err := next(t, w); !errno.Is(err, errno.Stale) {
		t.Error(err)
	}
	if _, err := h.Watch("/a", 3); !errno.Is(err, errno.Stale) {
		t.Error(err)
	}
	if _, err := h.Watch("a", 5); !errno.Is(err, errno.Invalid) {
		t.Error(err)
	}
	if _, err := h.Watch("/a", 99); !errno.Is(err, errno.Invalid) {
		t.Error(err)
	}

	// The caller's end, the watch's, the hub's.
	w, err = h.Watch("", 5)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("caller went away")
	cancel(stop)
	if _, err := w.Next(ctx); !errors.Is(err, stop) {
		t.Error(err)
	}
	w.Close()
	if _, err := next(t, w); !errno.Is(err, errno.Unavailable) {
		t.Error(err)
	}
	if len(h.watches) != 0 {
		t.Errorf("%d watches are left", len(h.watches))
	}
	w, err = h.Watch("", 5)
	if err != nil {
		t.Fatal(err)
	}
	h.Close(stop)
	if _, err := next(t, w); !errors.Is(err, stop) {
		t.Error(err)
	}
	if _, err := h.Watch("", 5); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestSlowWatcherIsCutOff(t *testing.T) {
	s := NewStore()
	h := NewHub(s.View())
	slow, err := h.Watch("", 0)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := h.Watch("/none", 0)
	if err != nil {
		t.Fatal(err)
	}
	for range MaxQueue + 1 {
		put(t, s, "/k", "")
		h.Publish(s.View())
	}
	if _, err := next(t, slow); !errno.Is(err, errno.Stale) {
		t.Errorf("%v", err)
	}
	put(t, s, "/none", "")
	h.Publish(s.View())
	if got, err := next(t, quick); err != nil || len(got) != 1 {
		t.Errorf("the other watcher: %v, %v", got, err)
	}
	if len(h.watches) != 1 {
		t.Errorf("%d watches", len(h.watches))
	}
	for range MaxWatches - 1 {
		if _, err := h.Watch("", h.View().Revision()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Watch("", 0); !errno.Is(err, errno.Full) {
		t.Error(err)
	}
}

// TestWatchersAndReaders runs everything that may be concurrent at once. Each
// watcher follows by list, watch, and list again, and must arrive at the end.
func TestWatchersAndReaders(t *testing.T) {
	s := NewStore()
	h := NewHub(s.View())
	const last = 3000
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for {
				v := h.View()
				state := map[string]*Entry{}
				all, _, _ := v.List("", 0, "")
				for _, e := range all {
					state[e.Key] = e
				}
				w, err := h.Watch("", v.Revision())
				rev := v.Revision()
				for err == nil && rev < last {
					var events []Event
					events, err = w.Next(t.Context())
					for _, e := range events {
						if e.Revision != rev+1 {
							t.Errorf("revision %d after %d", e.Revision, rev)
						}
						rev = e.Revision
						state[e.Key] = e.Entry
					}
				}
				if w != nil {
					w.Close()
				}
				if err != nil && !errno.Is(err, errno.Stale) {
					t.Errorf("watcher %d: %v", i, err)
					return
				}
				if rev == last {
					for k, e := range state {
						if now, _ := h.View().Get(k); now != e {
							t.Errorf("watcher %d: %s differs", i, k)
						}
					}
					return
				}
			}
		})
	}
	for i := range last {
		put(t, s, fmt.Sprintf("/k%d", i%17), fmt.Sprint(i))
		h.Publish(s.View())
	}
	wg.Wait()
}
