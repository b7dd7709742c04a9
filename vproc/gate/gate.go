package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"ssi/internal/id"
	"ssi/vproc/call"
)

const (
	// userCalls is how many calls of one (real) user other than root are handled at
	// a time.
	userCalls = 256
	// callTime is how long a Handler has; lateTime later the caller is told
	// ETIMEDOUT, whatever the Handler does.
	callTime = 30 * time.Second
	lateTime = 5 * time.Second
	// closeTime is how long Close waits.
	closeTime = 5 * time.Second
)

// Handler executes calls that concern other nodes.
type Handler interface {
	// Handle decides about r and, if the call is to be answered, has it executed. It
	// may be called for many calls at a time, and again for the same Origin after a
	// restart. It returns soon after ctx ends: after callTime, or because the gate is
	// being closed; what it returns then counts in the first case only. r and the
	// file in it are not valid any more after it has returned.
	Handle(ctx context.Context, r *call.Request) call.Outcome
}

// Config is what a gate needs.
type Config struct {
	Log     *slog.Logger
	Node    id.Node
	Journal string // path of a file, on a file system in memory
	Handler Handler
	// Quick, if set, is asked before the Handler about a call without a file: ok is false
	// if it cannot be decided at once. Of the caller it is told no more than Node, TID
	// and, if a process is named by 0, PGID. Of a call with memory it sees neither that
	// nor OutLen; it may let the caller's kernel go on or the call fail, nothing else, and
	// is not asked about those of class Always. The receiver itself asks, so it must not wait for
	// anything and must not do anything; it is asked in turn for the calls of one
	// listener, and some of them may wait no longer.
	Quick func(r *call.Request) (o call.Outcome, ok bool)
	// Kept are the listeners that outlived an earlier daemon, by their numbers; the
	// gate owns them. Calls in the journal that belong to none of them are forgotten:
	// nobody waits for their answers.
	Kept map[uint64]*os.File
	// Gone, if set, is told the number of a listener whose filter no process has any
	// more: there is no use in keeping it. It must not call the gate.
	Gone func(number uint64)
}

// Gate receives and answers caught calls.
type Gate struct {
	log     *slog.Logger
	handler Handler
	quick   func(*call.Request) (call.Outcome, bool)
	gone    func(uint64)
	node    id.Node
	journal *journal
	ids     *identities
	rows    rows
	limits  limits

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu        sync.Mutex
	closed    bool
	listeners map[uint64]*listener
	receivers sync.WaitGroup // Add only under mu while not closed
	users     map[uint32]int // calls that are handled, by real user
}

// limits are constants, but for tests.
type limits struct {
	user int
	time time.Duration
	late time.Duration
}

// New opens the journal and starts to receive from the listeners kept. The caller
// must close the gate. If it fails, the listeners stay open.
func New(c Config) (*Gate, error) {
	return newGate(c, limits{userCalls, callTime, lateTime})
}

func newGate(c Config, l limits) (*Gate, error) {
	if !c.Node.Valid() {
		return nil, fmt.Errorf("gate: %d is not a node", c.Node)
	}
	ids, err := newIdentities(c.Node)
	if err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	j, left, err := openJournal(c.Journal, c.Log)
	if err != nil {
		_ = ids.close()
		return nil, fmt.Errorf("gate: %w", err)
	}
	g := &Gate{
		log: c.Log, handler: c.Handler, quick: c.Quick, gone: c.Gone, node: c.Node, journal: j, ids: ids, rows: newRows(), limits: l,
		listeners: map[uint64]*listener{}, users: map[uint32]int{},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	kept := make([]*listener, 0, len(c.Kept))
	for number, f := range c.Kept {
		l, err := newListener(f, number, ids)
		if err != nil {
			for _, l := range kept {
				_ = l.file.Close()
			}
			g.cancel()
			return nil, errors.Join(fmt.Errorf("gate: listener %d: %w", number, err), j.close(), ids.close())
		}
		kept = append(kept, l)
		g.listeners[number] = l
	}
	leftOf := map[uint64][]int{}
	for _, i := range left {
		if number := j.listener(i); g.listeners[number] != nil {
			leftOf[number] = append(leftOf[number], i)
		} else {
			j.release(i)
		}
	}
	if len(left) > 0 {
		g.log.Info("the gate goes on with calls that were caught before", "calls", len(left))
	}
	for _, l := range kept {
		_ = c.Kept[l.number].Close()
		g.receivers.Add(1)
		go g.receive(l, leftOf[l.number])
	}
	return g, nil
}

// Add starts to receive from a listener, which the gate owns from now on. Its
// number is its own for as long as the journal lives.
func (g *Gate) Add(f *os.File, number uint64) error {
	defer func() { _ = f.Close() }()
	l, err := newListener(f, number, g.ids)
	if err != nil {
		return fmt.Errorf("gate: listener %d: %w", number, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		err = os.ErrClosed
	case g.listeners[number] != nil:
		err = os.ErrExist
	}
	if err != nil {
		_ = l.file.Close()
		return fmt.Errorf("gate: listener %d: %w", number, err)
	}
	g.listeners[number] = l
	g.receivers.Add(1)
	go g.receive(l, nil)
	return nil
}

// Close ends receiving. Calls that are being handled stay in the journal, and their
// callers wait for the next daemon. An error tells that the gate still waits for
// the memory of a caller.
func (g *Gate) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	g.cancel()
	for _, l := range g.listeners {
		_ = l.file.SetReadDeadline(time.Now())
	}
	g.mu.Unlock()
	done := make(chan struct{})
	go func() {
		g.receivers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return errors.Join(g.journal.close(), g.ids.close())
	case <-time.After(closeTime):
		// What hangs has the journal mapped and the listener open: both stay.
		return fmt.Errorf("gate: calls still hang %v after they were given up", closeTime)
	}
}

// enter counts a call of a user, and tells whether there may be one more; must makes
// it so.
func (g *Gate) enter(uid uint32, must bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !must && uid != 0 && g.users[uid] >= g.limits.user {
		return false
	}
	g.users[uid]++
	return true
}

func (g *Gate) leave(uid uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users[uid]--; g.users[uid] == 0 {
		delete(g.users, uid)
	}
}
