package registry

import (
	"context"
	"sync"

	"ssi/internal/errno"
)

// Hub hands the changes of a store to watchers. The owner of the store calls
// Publish after each batch of commands; everything else may be called by any
// goroutine.
type Hub struct {
	mu      sync.Mutex // before Watch.mu
	view    View
	watches map[*Watch]struct{}
	closed  error
}

// NewHub starts at a view.
func NewHub(v View) *Hub { return &Hub{view: v, watches: map[*Watch]struct{}{}} }

// View is the last published view.
func (h *Hub) View() View {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.view
}

// Publish makes v the present view and queues the changes since the last one.
// It never waits for a watcher.
func (h *Hub) Publish(v View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed != nil {
		return
	}
	var events []Event
	var err error
	if len(h.watches) > 0 {
		if v.rev < h.view.rev {
			err = errno.New(errno.Stale, "registry watch", 0, "the registry was set back from revision %d to %d: list again", h.view.rev, v.rev)
		} else {
			events, err = v.Events(h.view.rev, 0)
			err = withOp("registry watch", err)
		}
	}
	h.view = v
	if err == nil && len(events) == 0 {
		return
	}
	for w := range h.watches {
		if !w.push(events, err) {
			delete(h.watches, w)
		}
	}
}

// Watch follows the changes under prefix after a revision, typically that of
// the View that was listed. The error is of kind errno.Stale if they are not
// all known any more (list again), errno.Invalid for a bad prefix or a revision
// of the future, errno.Full if there are too many watches. The caller must
// Close the watch.
func (h *Hub) Watch(prefix string, after uint64) (*Watch, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, withOp("registry watch", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed != nil {
		return nil, h.closed
	}
	if len(h.watches) >= MaxWatches {
		return nil, errno.New(errno.Full, "registry watch", 0, "there are %d watches, the limit", MaxWatches)
	}
	events, err := h.view.Events(after, 0)
	if err != nil {
		return nil, withOp("registry watch", err)
	}
	w := &Watch{hub: h, prefix: prefix, wake: make(chan struct{}, 1)}
	w.push(events, nil)
	h.watches[w] = struct{}{}
	return w, nil
}

// Close ends all watches with the error cause, and so every later one.
func (h *Hub) Close(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed != nil {
		return
	}
	h.closed = cause
	for w := range h.watches {
		w.push(nil, cause)
	}
	clear(h.watches)
}

// Watch is one follower of a Hub.
type Watch struct {
	hub    *Hub
	prefix string
	wake   chan struct{} // holds a token while there may be something new

	mu    sync.Mutex // after Hub.mu
	queue []Event
	err   error // why nothing comes after queue
}

// push queues what concerns the watch; false means that it has ended.
func (w *Watch) push(events []Event, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return false
	}
	had := len(w.queue)
	for _, e := range events {
		if Under(w.prefix, e.Key) {
			w.queue = append(w.queue, e)
		}
	}
	if len(w.queue) > MaxQueue {
		err = errno.New(errno.Stale, "registry watch", 0, "the watcher fell %d changes behind and was cut off: list again", len(w.queue))
		w.queue = nil
	}
	w.err = err
	if len(w.queue) > had || err != nil {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return err == nil
}

// Next waits for changes and returns all that are queued, complete revisions in
// order. An error is final: of kind errno.Stale if the watcher was too slow or
// the history was replaced by a snapshot (list again), the cause of ctx, or
// that of Hub.Close. One goroutine at a time may call it.
func (w *Watch) Next(ctx context.Context) ([]Event, error) {
	for {
		w.mu.Lock()
		events, err := w.queue, w.err
		w.queue = nil
		w.mu.Unlock()
		if len(events) > 0 {
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Close ends the watch and frees its place.
func (w *Watch) Close() {
	w.hub.mu.Lock()
	delete(w.hub.watches, w)
	w.hub.mu.Unlock()
	w.push(nil, errno.New(errno.Unavailable, "registry watch", 0, "the watch is closed"))
}
