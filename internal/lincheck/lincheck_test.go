package lincheck

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

const limit = 20 * time.Second

// event begins or ends a client's operation.
type event struct {
	client int
	op     *Op     // begin
	res    *Result // end; nil with op nil: unknown
}

func begin(c int, k Kind, value string, rev uint64) event {
	return event{client: c, op: &Op{Kind: k, Key: "/k", Value: value, Revision: rev}}
}
func end(c int, value string, rev uint64) event {
	return event{client: c, res: &Result{Value: value, Revision: rev}}
}
func failed(c int) event  { return event{client: c, res: &Result{Failed: true}} }
func unknown(c int) event { return event{client: c} }

func play(steps []event) *Recorder {
	r := NewRecorder()
	calls := map[int]*Call{}
	for _, s := range steps {
		switch {
		case s.op != nil:
			calls[s.client] = r.Begin(s.client, *s.op)
		case s.res != nil:
			calls[s.client].Done(*s.res)
		default:
			calls[s.client].Unknown()
		}
	}
	return r
}

// one is an operation that nothing overlaps.
func one(k Kind, value string, rev uint64, gotValue string, gotRev uint64) []event {
	return []event{begin(0, k, value, rev), end(0, gotValue, gotRev)}
}

func chain(parts ...[]event) (all []event) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestHistories(t *testing.T) {
	for name, c := range map[string]struct {
		good  bool
		steps []event
	}{
		"nothing":        {true, nil},
		"absent":         {true, one(Get, "", 0, "", 0)},
		"write and read": {true, chain(one(Put, "a", 0, "", 1), one(Get, "", 0, "a", 1))},
		"lost write":     {false, chain(one(Put, "a", 0, "", 1), one(Get, "", 0, "", 0))},
		"stale read":     {false, chain(one(Put, "a", 0, "", 1), one(Put, "b", 0, "", 2), one(Get, "", 0, "a", 1))},
		"wrong revision": {false, chain(one(Put, "a", 0, "", 1), one(Get, "", 0, "a", 2))},
		"revision back":  {false, chain(one(Put, "a", 0, "", 5), one(Put, "b", 0, "", 4))},
		"same revision":  {false, chain(one(Put, "a", 0, "", 5), one(Put, "b", 0, "", 5))},
		"from nowhere":   {false, one(Get, "", 0, "x", 1)},
		"deleted":        {true, chain(one(Put, "a", 0, "", 1), one(Delete, "", 0, "", 0), one(Get, "", 0, "", 0), one(Put, "b", 0, "", 9))},
		"undead":         {false, chain(one(Put, "a", 0, "", 1), one(Delete, "", 0, "", 0), one(Get, "", 0, "a", 1))},

		"read beside a write, either way": {true, []event{
			begin(0, Put, "a", 0), begin(1, Get, "", 0), begin(2, Get, "", 0), end(1, "a", 1), end(2, "", 0), end(0, "", 1)}},
		"new, then old": {false, []event{
			begin(0, Put, "a", 0), begin(1, Get, "", 0), end(1, "a", 1), begin(1, Get, "", 0), end(1, "", 0), end(0, "", 1)}},

		"cas":               {true, chain(one(CAS, "a", 0, "", 1), one(CAS, "b", 1, "", 2), one(Get, "", 0, "b", 2))},
		"cas on old":        {false, chain(one(CAS, "a", 0, "", 1), one(CAS, "b", 1, "", 2), one(CAS, "c", 1, "", 3))},
		"cas on nothing":    {false, one(CAS, "b", 7, "", 8)},
		"create over":       {false, chain(one(Put, "a", 0, "", 1), one(CAS, "b", 0, "", 2))},
		"cas fails rightly": {true, chain(one(Put, "a", 0, "", 1), []event{begin(0, CAS, "b", 9), failed(0)}, one(Get, "", 0, "a", 1))},
		"cas fails wrongly": {false, chain(one(Put, "a", 0, "", 1), []event{begin(0, CAS, "b", 1), failed(0)})},
		"failed cas writes": {false, chain(one(Put, "a", 0, "", 1), []event{begin(0, CAS, "b", 9), failed(0)}, one(Get, "", 0, "b", 2))},
		"both win": {false, chain(one(Put, "a", 0, "", 1), []event{
			begin(0, CAS, "b", 1), begin(1, CAS, "c", 1), end(0, "", 2), end(1, "", 3)})},
		"both lose": {false, chain(one(Put, "a", 0, "", 1), []event{
			begin(0, CAS, "b", 1), begin(1, CAS, "c", 1), failed(0), failed(1)})},

		"unknown, happened":       {true, []event{begin(0, Put, "a", 0), unknown(0), begin(1, Get, "", 0), end(1, "a", 4)}},
		"unknown, did not":        {true, []event{begin(0, Put, "a", 0), unknown(0), begin(1, Get, "", 0), end(1, "", 0)}},
		"unknown, happened late":  {true, []event{begin(0, Put, "a", 0), unknown(0), begin(1, Get, "", 0), end(1, "", 0), begin(1, Get, "", 0), end(1, "a", 4)}},
		"unknown, came and went":  {false, []event{begin(0, Put, "a", 0), unknown(0), begin(1, Get, "", 0), end(1, "a", 4), begin(1, Get, "", 0), end(1, "", 0)}},
		"unknown, two revisions":  {false, []event{begin(0, Put, "a", 0), unknown(0), begin(1, Get, "", 0), end(1, "a", 4), begin(1, Get, "", 0), end(1, "a", 5)}},
		"unknown, happened early": {false, chain(one(Get, "", 0, "a", 1), []event{begin(0, Put, "a", 0), unknown(0)})},
		"unknown, happened twice": {false, chain([]event{begin(1, Put, "a", 0), unknown(1)}, one(Get, "", 0, "a", 1), one(Put, "b", 0, "", 2), one(Get, "", 0, "a", 3))},
		"cas on an unknown put":   {true, chain([]event{begin(1, Put, "a", 0), unknown(1)}, one(CAS, "b", 3, "", 4), one(Get, "", 0, "b", 4))},
		"unknown cas happened":    {true, chain(one(Put, "a", 0, "", 1), []event{begin(1, CAS, "b", 1), unknown(1)}, one(Get, "", 0, "b", 2))},
		"unknown cas did not":     {true, chain(one(Put, "a", 0, "", 1), []event{begin(1, CAS, "b", 1), unknown(1)}, one(Get, "", 0, "a", 1))},
		"unknown cas did, could not": {false, chain(one(Put, "a", 0, "", 1), []event{begin(1, CAS, "b", 7), unknown(1)},
			one(Get, "", 0, "b", 8))},
		"unknown get says nothing": {true, []event{begin(0, Get, "", 0), unknown(0)}},
		"unknown delete":           {true, chain(one(Put, "a", 0, "", 1), []event{begin(1, Delete, "", 0), unknown(1)}, one(Get, "", 0, "a", 1), one(Get, "", 0, "", 0))},
	} {
		t.Run(name, func(t *testing.T) {
			err := play(c.steps).Check(limit)
			var v *ViolationError
			switch {
			case c.good && err != nil:
				t.Error(err)
			case !c.good && !errors.As(err, &v):
				t.Errorf("not noticed: %v", err)
			case !c.good && (v.Key != "/k" || !strings.Contains(v.History, "client")):
				t.Errorf("reported as %v", v)
			}
		})
	}
}

// store is a linearizable registry, or with a fault one that is not.
type store struct {
	mu    sync.Mutex
	rev   uint64
	now   map[string]Result
	old   map[string]Result // what a stale read sees
	fault string
}

func (s *store) do(op Op, rnd *rand.Rand) Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now[op.Key]
	switch {
	case op.Kind == Get && s.fault == "stale read" && rnd.IntN(20) == 0:
		return s.old[op.Key]
	case op.Kind == Get:
		return now
	case op.Kind == CAS && now.Revision != op.Revision && (s.fault != "blind cas" || rnd.IntN(20) > 0):
		return Result{Failed: true}
	case op.Kind == Put && s.fault == "lost write" && rnd.IntN(20) == 0:
		s.rev++
		return Result{Revision: s.rev}
	}
	s.rev++
	s.old[op.Key] = now
	s.now[op.Key] = Result{Revision: s.rev, Value: op.Value}
	return Result{Revision: s.rev}
}

// TestRecorder records real concurrent clients, of a right store and of wrong
// ones. Some answers are lost.
func TestRecorder(t *testing.T) {
	for _, fault := range []string{"", "stale read", "lost write", "blind cas"} {
		t.Run(fault, func(t *testing.T) {
			s := &store{now: map[string]Result{}, old: map[string]Result{}, fault: fault}
			r := NewRecorder()
			var wg sync.WaitGroup
			for client := range 5 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(client), 3))
					seen := map[string]uint64{}
					for i := range 200 {
						key := fmt.Sprintf("/k%d", rnd.IntN(4))
						op := Op{Kind: Kind(1 + rnd.IntN(3)), Key: key, Value: fmt.Sprintf("%d.%d", client, i)}
						if op.Kind == CAS {
							// Often the right one, often an old one.
							op.Revision = seen[key] - min(seen[key], rnd.Uint64N(2))
						}
						call := r.Begin(client, op)
						if rnd.IntN(50) == 0 {
							call.Failed() // never sent
							continue
						}
						runtime.Gosched()
						res := s.do(op, rnd)
						runtime.Gosched()
						if rnd.IntN(100) == 0 {
							call.Unknown()
							continue
						}
						if call.Done(res); !res.Failed {
							seen[key] = res.Revision
						}
					}
				})
			}
			wg.Wait()
			if r.Len() < 900 {
				t.Errorf("%d operations", r.Len())
			}
			err := r.Check(limit)
			var v *ViolationError
			if fault == "" && err != nil || fault != "" && !errors.As(err, &v) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestWriteHTML(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.html")
	if err := play(chain(one(Put, "a", 0, "", 1), one(Get, "", 0, "", 0))).WriteHTML(path, limit); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "<html") {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestUndecided(t *testing.T) {
	r := NewRecorder()
	for i := range 40 { // all open at once
		r.Begin(i, Op{Kind: Put, Key: "/k", Value: fmt.Sprint(i)}).Unknown()
	}
	for i := range 30 {
		r.Begin(0, Op{Kind: Get, Key: "/k"}).Done(Result{Value: fmt.Sprint(i), Revision: uint64(i + 1)})
	}
	r.Begin(0, Op{Kind: Get, Key: "/k"}).Done(Result{Value: "never", Revision: 50})
	if err := r.Check(50 * time.Millisecond); !errors.Is(err, ErrUndecided) {
		t.Errorf("%v", err)
	}
}
