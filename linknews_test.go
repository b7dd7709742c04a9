package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"ssi/cluster"
	"ssi/cluster/member"
	"ssi/cluster/registry"
	"ssi/internal/id"
	"ssi/internal/netconf"
)

// memoryRegistry is a registry in memory.
type memoryRegistry struct {
	mu    sync.Mutex
	store *registry.Store
	fail  error         // what Put answers, although it writes
	wrote chan struct{} // holds one
}

func newMemoryRegistry() *memoryRegistry {
	return &memoryRegistry{store: registry.NewStore(), wrote: make(chan struct{}, 1)}
}

func (m *memoryRegistry) Stale() registry.View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store.View()
}

func (m *memoryRegistry) Put(_ context.Context, system bool, key string, value []byte, lease uint64) (*registry.Result, error) {
	cmd, err := registry.EncodeTxn(system, nil, registry.PutOp(key, value, lease))
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := registry.DecodeResult(m.store.Apply(1, cmd))
	if err == nil && m.fail != nil {
		return nil, m.fail
	}
	select {
	case m.wrote <- struct{}{}:
	default:
	}
	return r, err
}

func change(at int64, link, master, from, to string) netconf.Change {
	return netconf.Change{At: time.Unix(at, 0), Link: link, Master: master, From: from, To: to}
}

func eventLines(t *testing.T, events *linkEvents, reg *memoryRegistry, history ...member.Transition) []string {
	t.Helper()
	events.look(reg.Stale())
	for _, f := range clusterFiles(&member.View{History: history}, 1, events.all) {
		if f.Name == "events" {
			var lines []string
			for line := range strings.Lines(string(f.Content)) {
				lines = append(lines, strings.Join(strings.Fields(line), " "))
			}
			return lines[1:]
		}
	}
	t.Fatal("there is no file events")
	return nil
}

// What happens to links of two nodes stands among the transitions, by its time.
func TestLinkEvents(t *testing.T) {
	reg, log := newMemoryRegistry(), slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	life := func(n id.Node) *linkNews { return newLinkNews(n, reg, log, filepath.Join(dir, n.String())) }
	one, two := life(1), life(2)
	one.changed([]netconf.Change{change(100, "eth0", "ic0", "up", "no carrier"), change(101, "eth1", "", "down", "no carrier")})
	two.changed([]netconf.Change{change(90, "ic0", "", "no carrier", "up")})
	reg.fail = errors.New("no answer in time") // and yet it is written
	if err := one.write(t.Context()); err == nil {
		t.Error("a write that failed is none")
	}
	reg.fail = nil
	one = life(1) // its daemon was started anew
	for _, n := range []*linkNews{one, two, one} {
		if err := n.write(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var events linkEvents
	got := eventLines(t, &events, reg, member.Transition{Epoch: 1, Wall: 95e9, Node: 2, From: member.ComingUp, To: member.Up, Cause: "ready"})
	want := []string{
		"- 1970-01-01T00:01:30Z 2 down up link ic0",
		"1 1970-01-01T00:01:35Z 2 COMINGUP UP ready",
		"- 1970-01-01T00:01:40Z 1 up down link eth0 of ic0: no carrier",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q", got)
	}
	if events.look(reg.Stale()) {
		t.Error("nothing changed")
	}

	// Another life of the daemon goes on with them; the oldest are forgotten.
	again := life(1)
	for i := range int64(maxLinkEvents) - 1 {
		again.changed([]netconf.Change{change(200+i, "eth0", "", "up", "down")})
	}
	if err := again.write(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := eventLines(t, &events, reg); len(got) != 1+maxLinkEvents || !strings.Contains(got[1], "link eth0 of ic0: no carrier") {
		t.Errorf("%d lines: %q", len(got), got)
	}
}

// Events wait while the registry takes none.
func TestLinkNewsWaits(t *testing.T) {
	reg := newMemoryRegistry()
	n := newLinkNews(3, reg, slog.New(slog.DiscardHandler), filepath.Join(t.TempDir(), "links"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n.run(ctx) }()
	n.changed([]netconf.Change{change(1, "eth0", "", "up", "missing")})
	select {
	case <-reg.wrote:
	case <-time.After(30 * time.Second):
		t.Error("nothing was written")
	}
	cancel()
	<-done
	if e, err := reg.Stale().Get(cluster.LinksKey(3)); err != nil || len(parseLinkEvents(e.Value)) != 1 {
		t.Errorf("%v, %v", e, err)
	}
}

func FuzzLinkEvents(f *testing.F) {
	f.Add([]byte(`[{"wall":1,"link":"eth0","master":"ic0","state":"no carrier"}]`))
	f.Add([]byte(`[{"link":"\u001b[2J\n"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all := parseLinkEvents(b)
		if len(all) > maxLinkEvents {
			t.Errorf("%d events", len(all))
		}
		for _, e := range all {
			linkRow(func(cells ...any) {
				if text := fmt.Sprint(cells...); strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("%q", text)
				}
			}, nodeLinkEvent{id.Node(1), e})
		}
	})
}
