package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"ssi/cluster"
	"ssi/cluster/registry"
	"ssi/internal/id"
	"ssi/internal/netconf"
)

const (
	// maxLinkEvents is how many changes of its links each node keeps in the registry.
	maxLinkEvents = 16
	// linkPause is the time between two writes of them, which doubles while the
	// registry does not take them.
	linkPause    = 2 * time.Second
	maxLinkPause = 30 * time.Second
	linkTimeout  = 5 * time.Second // of a write
	maxLinkText  = 64              // bytes of a name or state
)

// linkEvent is that a link of a node went down or came up.
type linkEvent struct {
	Wall   int64  `json:"wall"` // of its node's clock, ns since 1970
	Link   string `json:"link"`
	Master string `json:"master,omitempty"` // the bond that it is a member of
	State  string `json:"state"`            // up; else it is down
}

// linkRegistry is what linkNews needs of cluster.Registry.
type linkRegistry interface {
	Stale() registry.View
	Put(ctx context.Context, system bool, key string, value []byte, lease uint64) (*registry.Result, error)
}

// linkNews tells the other nodes, by the registry, when links of this one go down
// or come up. A node that lost the link over which the nodes talk is declared dead,
// and its daemon starts anew: events that are not told yet are in a file.
type linkNews struct {
	self     id.Node
	registry linkRegistry
	log      *slog.Logger
	path     string        // of the file of events that are not told yet
	wake     chan struct{} // holds one

	told []linkEvent // what the registry has of this node; nil: not known. Of run

	mu     sync.Mutex
	events []linkEvent // not told yet, the oldest first, at most maxLinkEvents
}

func newLinkNews(self id.Node, reg linkRegistry, log *slog.Logger, path string) *linkNews {
	l := &linkNews{self: self, registry: reg, log: log, path: path, wake: make(chan struct{}, 1)}
	b, err := os.ReadFile(path)
	if err == nil {
		l.events = parseLinkEvents(b)
		l.changed(nil)
	} else if !errors.Is(err, fs.ErrNotExist) {
		l.problem(err)
	}
	return l
}

func (l *linkNews) problem(err error) {
	l.log.Warn("the other nodes may not learn of the links of this one", "op", "links", "err", err)
}

// save writes the events that are not told yet, to memory. l.mu is held.
func (l *linkNews) save() {
	b, err := json.Marshal(l.events)
	if err == nil {
		err = os.WriteFile(l.path, b, 0o644)
	}
	if err != nil {
		l.problem(err)
	}
}

// changed notes changes; it does not wait.
func (l *linkNews) changed(all []netconf.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := false
	for _, c := range all {
		if (c.From == netconf.StateUp) == (c.To == netconf.StateUp) {
			continue
		}
		found = true
		l.log.Info("link", "name", c.Link, "of", c.Master, "was", c.From, "is", c.To)
		l.events = lastEvents(append(l.events, linkEvent{Wall: c.At.UnixNano(), Link: c.Link, Master: c.Master, State: c.To}))
	}
	if found {
		l.save()
	}
	if len(l.events) > 0 {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func lastEvents(all []linkEvent) []linkEvent { return all[max(0, len(all)-maxLinkEvents):] }

// run writes until ctx ends. While the registry takes nothing, for example because
// the link is the one over which the nodes talk, events wait.
func (l *linkNews) run(ctx context.Context) {
	pause := linkPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		if err := l.write(ctx); err == nil {
			pause = linkPause
		} else if ctx.Err() == nil {
			l.log.Warn("the other nodes are not told of the links of this one", "op", "links", "err", err, "again_in", pause)
			l.changed(nil) // try again
			pause = min(2*pause, maxLinkPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// write adds the events to those that the registry has.
func (l *linkNews) write(ctx context.Context) error {
	l.mu.Lock()
	waiting := slices.Clone(l.events)
	l.mu.Unlock()
	if len(waiting) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	if l.told == nil {
		l.told = []linkEvent{}
		if e, err := l.registry.Stale().Get(cluster.LinksKey(l.self)); err == nil {
			l.told = parseLinkEvents(e.Value)
		}
	}
	// A write that failed may have been one that came through.
	l.told = slices.DeleteFunc(l.told, func(e linkEvent) bool { return slices.Contains(waiting, e) })
	all := lastEvents(append(l.told, waiting...))
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if _, err := l.registry.Put(ctx, true, cluster.LinksKey(l.self), b, 0); err != nil {
		return err
	}
	l.told = all
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = slices.DeleteFunc(l.events, func(e linkEvent) bool { return slices.Contains(waiting, e) })
	l.save()
	return nil
}

// parseLinkEvents reads what a node wrote; what is not understood is none.
func parseLinkEvents(b []byte) []linkEvent {
	var all []linkEvent
	if json.Unmarshal(b, &all) != nil {
		return nil
	}
	strange := func(text string) bool {
		return len(text) > maxLinkText || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
	}
	return lastEvents(slices.DeleteFunc(all, func(e linkEvent) bool { return strange(e.Link) || strange(e.Master) || strange(e.State) }))
}

// watchLinks tells of the links of this node until ctx ends.
func (p *parts) watchLinks(ctx context.Context) {
	w, err := netconf.NewWatcher(p.machine.wanted, p.n.log)
	if err != nil {
		p.n.log.Error("nobody sees when a link goes down", "op", "links", "err", err)
		return
	}
	news := newLinkNews(p.cluster.Self(), p.cluster.Registry(), p.n.log, filepath.Join(runDir, "links.json"))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { news.run(ctx) })
	w.Run(ctx, news.changed)
}

// linkEvents is what the nodes told, as of a revision of the registry.
type linkEvents struct {
	revision uint64
	newest   uint64 // of the keys
	keys     int
	all      []nodeLinkEvent
}

// nodeLinkEvent is an event of a node.
type nodeLinkEvent struct {
	node id.Node
	linkEvent
}

// look reads the registry, if it changed, and reports whether the events did.
func (l *linkEvents) look(v registry.View) (changed bool) {
	if v.Revision() == l.revision {
		return false
	}
	l.revision = v.Revision()
	entries, _, err := v.List(cluster.LinksPrefix, int(id.MaxNode), "")
	if err != nil { // the prefix is a valid one
		return false
	}
	var newest uint64
	for _, e := range entries {
		newest = max(newest, e.Mod)
	}
	if newest == l.newest && len(entries) == l.keys {
		return false
	}
	l.newest, l.keys, l.all = newest, len(entries), nil
	for _, e := range entries {
		n, err := id.ParseNode(strings.TrimPrefix(e.Key, cluster.LinksPrefix))
		if err != nil {
			continue
		}
		for _, event := range parseLinkEvents(e.Value) {
			l.all = append(l.all, nodeLinkEvent{n, event})
		}
	}
	slices.SortStableFunc(l.all, func(a, b nodeLinkEvent) int { return cmp.Compare(a.Wall, b.Wall) })
	return true
}
