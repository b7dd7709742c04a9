package procfs

import (
	"context"
	"sync"
	"time"

	"ssi/internal/id"
)

const (
	// maxPoll is how long a node may take to answer a poll.
	maxPoll = 5 * time.Second
	// listWait is how long a listing waits for what changed, lookWait how long
	// the lookup of a PID does that is not known.
	listWait = 25 * time.Millisecond
	lookWait = 250 * time.Millisecond
	// old is the age from which on what a node told is asked for again when one of
	// its processes is looked at.
	old = time.Second
	// attrTTL is how long the kernel believes what it was told of a remote process. For that
	// long after the last answer the table is kept up to date, every keepUp.
	attrTTL = 10 * time.Second
	keepUp  = 500 * time.Millisecond
)

// Peers is how other nodes are asked.
type Peers interface {
	Poll(ctx context.Context, n id.Node, req *PollRequest) (*PollReply, error)
	Fetch(ctx context.Context, n id.Node, req *FetchRequest) (*FetchReply, error)
}

// refresher keeps the table up to date.
type refresher struct {
	table *Table
	peers Peers
	tell  func(stale) // tells the kernel; must not wait for a request
	ctx   context.Context
	wg    sync.WaitGroup

	mu   sync.Mutex
	used time.Time     // when remote processes were last looked at
	wake chan struct{} // of capacity 1
}

func newRefresher(ctx context.Context, t *Table, peers Peers, tell func(stale)) *refresher {
	return &refresher{table: t, peers: peers, tell: tell, ctx: ctx, wake: make(chan struct{}, 1)}
}

// run keeps what the kernel may have cached up to date until the context ends, and waits for
// everything then.
func (r *refresher) run() {
	defer r.wg.Wait()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.wake:
		}
		for t := time.NewTimer(keepUp); ; t.Reset(keepUp) {
			select {
			case <-r.ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			r.mu.Lock()
			idle := time.Since(r.used) > attrTTL
			r.mu.Unlock()
			if idle {
				break
			}
			for _, n := range r.table.nodes() {
				if polled, up := r.table.up(n); up && time.Since(polled) >= keepUp {
					r.start(n, polled, false)
				}
			}
		}
	}
}

// looked notes that the kernel was told something of a remote process.
func (r *refresher) looked() {
	r.mu.Lock()
	asleep := time.Since(r.used) > attrTTL
	r.used = time.Now()
	r.mu.Unlock()
	if asleep {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// start makes sure that node n is asked what changed after the time since, or, if quick is set, at least who
// began and who ended, and returns what to wait for: nil if it is not UP.
func (r *refresher) start(n id.Node, since time.Time, quick bool) *poll {
	t := r.table
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[n]
	switch {
	case p == nil || r.ctx.Err() != nil:
		return nil
	case p.poll == nil:
		p.poll = &poll{began: time.Now(), quick: quick, done: make(chan struct{})}
		r.wg.Add(1)
		go r.ask(n, p)
		return p.poll
	case p.poll.began.After(since) && (quick || !p.poll.quick):
		return p.poll
	case p.next == nil:
		p.next = &poll{quick: true, done: make(chan struct{})}
	}
	p.next.quick = p.next.quick && quick
	return p.next
}

// ask polls node n, and again if someone wanted to know it while that lasted.
func (r *refresher) ask(n id.Node, p *peer) {
	defer r.wg.Done()
	for {
		r.table.mu.Lock()
		began, quick := p.poll.began, p.poll.quick
		r.table.mu.Unlock()
		err := r.all(n, p, began, quick)
		r.table.mu.Lock()
		close(p.poll.done)
		if err == nil {
			p.late = p.late && time.Since(began) > listWait
		}
		p.poll, p.next = p.next, nil
		if p.poll == nil {
			r.table.mu.Unlock()
			return
		}
		p.poll.began = time.Now()
		r.table.mu.Unlock()
	}
}

// all polls until there is no more.
func (r *refresher) all(n id.Node, p *peer, began time.Time, quick bool) error {
	ctx, cancel := context.WithTimeout(r.ctx, maxPoll)
	defer cancel()
	for {
		r.table.mu.Lock()
		req := &PollRequest{Instance: p.instance, Since: p.at, Quick: quick}
		r.table.mu.Unlock()
		rep, err := r.peers.Poll(ctx, n, req)
		if err != nil {
			return err
		}
		rep.All = rep.GetAll() || !quick
		r.tell(r.table.apply(n, rep, began))
		if !rep.GetMore() {
			return nil
		}
	}
}

// refresh asks nodes what changed and waits for the answers, for wait at most. A
// node that was late is asked and not waited for, unless patient is set. quick is for who wants to know
// which processes there are, and of those that are not young nothing else.
func (r *refresher) refresh(ctx context.Context, wait time.Duration, patient, quick bool, nodes ...id.Node) {
	now := time.Now()
	type asked struct {
		node id.Node
		*poll
	}
	var polls []asked
	for _, n := range nodes {
		p := r.start(n, now, quick)
		if p == nil {
			continue
		}
		r.table.mu.Lock()
		q := r.table.peers[n]
		late := q == nil || q.late
		r.table.mu.Unlock()
		if !late || patient {
			polls = append(polls, asked{n, p})
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	for i, p := range polls {
		select {
		case <-p.done:
			continue
		case <-ctx.Done():
			return
		case <-t.C:
		}
		r.table.mu.Lock()
		for _, p := range polls[i:] {
			select {
			case <-p.done:
			default:
				if q := r.table.peers[p.node]; q != nil {
					q.late = true
				}
			}
		}
		r.table.mu.Unlock()
		return
	}
}
