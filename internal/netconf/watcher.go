package netconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Change is that a link went from one state to another.
type Change struct {
	At     time.Time // when it was seen
	Link   string
	Master string // the bond that it is a member of
	From   string // up, down, no carrier, missing
	To     string
}

// changes compares two looks. A link that is seen for the first time has not
// changed; one that is not there any more is missing.
func changes(before, after []Health, now time.Time) []Change {
	var out []Change
	for _, b := range before {
		i := slices.IndexFunc(after, func(a Health) bool { return a.Name == b.Name })
		a := Health{State: StateMissing, Master: b.Master}
		if i >= 0 {
			a = after[i]
		}
		if a.State != b.State {
			out = append(out, Change{At: now, Link: b.Name, Master: a.Master, From: b.State, To: a.State})
		}
	}
	return out
}

// Watcher sees links go down and come up, also where another program configures
// the network.
type Watcher struct {
	k    *kernel
	news *nl.NetlinkSocket
	want func() Wanted
	log  *slog.Logger
	wake chan struct{} // holds one
	last []Health
}

// NewWatcher begins to watch the links that want says: Run tells what changes from
// now on. Errors are those of netlink.
func NewWatcher(want func() Wanted, log *slog.Logger) (*Watcher, error) {
	k, err := openKernel(nil)
	if err != nil {
		return nil, fmt.Errorf("watch the links: %w", err)
	}
	news, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		k.close()
		return nil, fmt.Errorf("watch the links: %w", err)
	}
	last, err := k.look(want())
	if err != nil {
		news.Close()
		k.close()
		return nil, fmt.Errorf("watch the links: %w", err)
	}
	return &Watcher{k: k, news: news, want: want, log: log, wake: make(chan struct{}, 1), last: last}, nil
}

// Run tells of changes until the context ends, and closes the Watcher. tell must
// not block. What changes back at once is not told.
func (w *Watcher) Run(ctx context.Context, tell func([]Change)) {
	var watcher sync.WaitGroup
	watcher.Go(w.watch)
	defer w.k.close()
	defer watcher.Wait()
	defer w.news.Close()
	for ctx.Err() == nil {
		want := w.want()
		for _, h := range w.last { // those that lose their address, or go
			if !slices.Contains(want.Names, h.Name) {
				want.Names = append(slices.Clone(want.Names), h.Name)
			}
		}
		now, err := w.k.look(want)
		if err != nil {
			w.log.Warn("the links cannot be read", "op", "links", "err", err)
		} else {
			if found := changes(w.last, now, time.Now()); len(found) > 0 {
				tell(found)
			}
			w.last = now
		}
		w.pause(ctx)
	}
}

// pause waits for news, and then for what else comes at once.
func (w *Watcher) pause(ctx context.Context) {
	timer := time.NewTimer(checkEvery)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
		return
	case <-w.wake:
	}
	timer.Reset(gather)
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func (w *Watcher) watch() {
	for {
		_, _, err := w.news.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return // closed; the loop still looks by itself
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}
