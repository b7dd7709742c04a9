package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/internal/sys"
	"ssi/vproc/call"
)

// keptAnswers is how many calls of a node are remembered: eight times as many as
// its gate has under way at a time.
const keptAnswers = 8192

// The file of a node is a head and the slots, a ring, all numbers little-endian. A
// slot is in use if its sequence number is not 0.
const (
	answersMagic = 0x3130736e61697373 // "ssians01"
	answersHead  = 64
	offBootID    = 8  // boot_id of the kernel, 16 bytes
	offNext      = 24 // the slot that is used next
	offLostInc   = 32 // the incarnation and the highest number of
	offLostSeq   = 40 // the calls that were forgotten
	slotSize     = 64
	offInc       = 0
	offSeq       = 8
	offBegun     = 16 // a deputy writes here when it begins: NotMade before
	offRet       = 24 // what the kernel said, or NotMade
	offOut       = 32 // what the call wrote
	outRoom      = 24
	offOutLen    = 56
	answersSize  = answersHead + keptAnswers*slotSize
)

// answers are the calls that were executed here, and what the kernel said.
type answers struct {
	dir  string
	log  *slog.Logger
	lock *os.File // as long as this process or one of its deputies lives
	// sure tells that all deputies of earlier daemons have ended.
	sure bool

	mu    sync.Mutex
	nodes map[id.Node]*ring
}

// ring is the calls of one node.
type ring struct {
	mem  []byte
	at   map[origin]int
	busy map[origin]chan struct{} // closed when the call is done
}

type origin struct{ inc, seq uint64 }

// slot is the place of one call.
type slot struct {
	mem []byte
	i   int
}

func (s *slot) begun() []byte { return s.mem[offBegun:][:8:8] }
func (s *slot) ret() []byte   { return s.mem[offRet:][:8:8] }
func (s *slot) out() []byte   { return s.mem[offOut:][:outRoom:outRoom] }

// errUnknown is the end of a call of which is not known whether it was done.
var errUnknown = errors.New("a call that may have been done before")

// lockTime bounds the wait for the deputies of an earlier daemon, which live for
// microseconds.
const lockTime = 2 * time.Second

func openAnswers(dir string, log *slog.Logger) (*answers, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	a := &answers{dir: dir, log: log, lock: f, nodes: map[id.Node]*ring{}}
	for deadline := time.Now().Add(lockTime); ; time.Sleep(time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			a.sure = true
			return a, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if time.Now().After(deadline) {
			log.Warn("something of an earlier daemon still runs: calls it left are not repeated", "op", "remote")
			return a, nil
		}
	}
}

func (a *answers) close() {
	for _, r := range a.nodes {
		_ = unix.Munmap(r.mem) // nobody uses it any more
	}
	_ = a.lock.Close()
}

// ring is the table of node n; a.mu is held.
func (a *answers) ring(n id.Node) (*ring, error) {
	if r := a.nodes[n]; r != nil {
		return r, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(boot) < 36 {
		return nil, fmt.Errorf("boot_id: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(a.dir, "answers-"+n.String()), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, answersSize); err != nil { // a page that is missing later is a SIGBUS
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, answersSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if binary.LittleEndian.Uint64(mem) != answersMagic || string(mem[offBootID:][:16]) != string(boot[20:36]) {
		clear(mem)
		copy(mem[offBootID:], boot[20:36])
		binary.LittleEndian.PutUint64(mem, answersMagic)
	}
	r := &ring{mem: mem, at: map[origin]int{}, busy: map[origin]chan struct{}{}}
	for i := range keptAnswers {
		s := r.slot(i)
		if o := s.origin(); o.seq != 0 {
			r.at[o] = i
		}
	}
	a.nodes[n] = r
	return r, nil
}

func (r *ring) slot(i int) *slot { return &slot{mem: r.mem[answersHead+i*slotSize:][:slotSize], i: i} }

func (s *slot) origin() origin {
	return origin{binary.LittleEndian.Uint64(s.mem[offInc:]), binary.LittleEndian.Uint64(s.mem[offSeq:])}
}

func (s *slot) number(off int) int64 { return sys.LoadKept(s.mem[off:]) }

// take gives o a slot, that of the oldest call which is not under way.
func (r *ring) take(o origin) (*slot, error) {
	next := int(binary.LittleEndian.Uint64(r.mem[offNext:]) % keptAnswers)
	for range keptAnswers {
		s := r.slot(next)
		next = (next + 1) % keptAnswers
		old := s.origin()
		if _, busy := r.busy[old]; busy {
			continue
		}
		if old.seq != 0 {
			r.forget(s, old)
		}
		binary.LittleEndian.PutUint64(r.mem[offNext:], uint64(next))
		sys.StoreKept(s.begun(), sys.NotMade)
		sys.StoreKept(s.ret(), sys.NotMade)
		clear(s.mem[offOut:])
		binary.LittleEndian.PutUint64(s.mem[offInc:], o.inc)
		sys.StoreKept(s.mem[offSeq:], int64(o.seq))
		r.at[o] = s.i
		return s, nil
	}
	return nil, unix.EAGAIN
}

// forget notes that a call is not remembered any more.
func (r *ring) forget(s *slot, old origin) {
	seq := old.seq
	if binary.LittleEndian.Uint64(r.mem[offLostInc:]) == old.inc {
		seq = max(seq, binary.LittleEndian.Uint64(r.mem[offLostSeq:]))
	}
	binary.LittleEndian.PutUint64(r.mem[offLostInc:], old.inc)
	binary.LittleEndian.PutUint64(r.mem[offLostSeq:], seq)
	r.free(s, old)
}

func (r *ring) free(s *slot, o origin) {
	sys.StoreKept(s.mem[offSeq:], 0)
	delete(r.at, o)
}

// do calls run for the call r, unless that was done before, and returns what the
// kernel said. run leaves that in the slot, by a deputy or by itself; its error
// tells that nothing was done, unless it is sys.ErrDeputyLost.
func (a *answers) do(ctx context.Context, r *call.Request, run func(*slot) (call.Reply, error)) (call.Reply, error) {
	o := origin{r.Origin.Incarnation, r.Origin.Seq}
	if o.seq == 0 || int64(o.seq) < 0 {
		return call.Reply{}, unix.EINVAL
	}
	s, done, err := a.begin(ctx, r.Origin.Node, o)
	if err != nil {
		return call.Reply{}, err
	}
	if s == nil {
		return call.Reply{}, errUnknown
	}
	if done == nil {
		reply := s.reply()
		reply.Out = reply.Out[:min(len(reply.Out), int(r.OutLen))]
		return reply, nil
	}
	defer done()
	reply, err := run(s)
	switch {
	case err == nil:
		s.finish(reply)
	case errors.Is(err, sys.ErrDeputyLost):
		s.finish(call.Reply{Errno: unix.EIO})
		return call.Reply{}, errUnknown
	default:
		a.mu.Lock()
		a.nodes[r.Origin.Node].free(s, o)
		a.mu.Unlock()
	}
	return reply, err
}

// knows tells whether the call that o names was begun here.
func (a *answers) knows(o call.Origin) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, err := a.ring(o.Node)
	if err != nil {
		return false
	}
	key := origin{o.Incarnation, o.Seq}
	_, known := r.at[key]
	return known
}

// begin finds out what is known of o. If it is to be done, done ends that; s is
// nil if it must not be done.
func (a *answers) begin(ctx context.Context, n id.Node, o origin) (s *slot, done func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, err := a.ring(n)
	if err != nil {
		return nil, nil, err
	}
	for r.busy[o] != nil {
		other := r.busy[o]
		a.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			err = ctx.Err()
		}
		a.mu.Lock()
		if err != nil {
			return nil, nil, err
		}
	}
	i, known := r.at[o]
	switch {
	case known:
		s = r.slot(i)
		if s.number(offRet) != sys.NotMade {
			return s, nil, nil
		}
		if !a.sure || s.number(offBegun) != sys.NotMade {
			return nil, nil, nil
		}
	case binary.LittleEndian.Uint64(r.mem[offLostInc:]) == o.inc && o.seq <= binary.LittleEndian.Uint64(r.mem[offLostSeq:]):
		return nil, nil, nil
	default:
		if s, err = r.take(o); err != nil {
			return nil, nil, err
		}
	}
	now := make(chan struct{})
	r.busy[o] = now
	return s, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(r.busy, o)
		close(now)
	}, nil
}

// finish notes the outcome of a call.
func (s *slot) finish(r call.Reply) {
	n := copy(s.out(), r.Out)
	binary.LittleEndian.PutUint64(s.mem[offOutLen:], uint64(n)+1)
	ret := r.Ret
	if r.Errno != 0 {
		ret = -int64(r.Errno)
	}
	sys.StoreKept(s.ret(), ret)
}

// reply is the outcome that was noted, by finish or by a deputy alone.
func (s *slot) reply() call.Reply {
	ret := s.number(offRet)
	n := int(binary.LittleEndian.Uint64(s.mem[offOutLen:])) - 1
	failed := ret < 0 && ret >= -4095
	switch {
	case n >= 0:
		n = min(n, outRoom)
	case failed:
		n = 0
	default: // the daemon was killed before it noted the length: as much as the caller has room for
		n = outRoom
	}
	out := append([]byte(nil), s.out()[:n]...)
	if failed {
		return call.Reply{Errno: unix.Errno(-ret), Out: out}
	}
	return call.Reply{Ret: ret, Out: out}
}
