// Package lincheck records what concurrent clients did to a few registers with
// revisions and decides whether it was linearizable: whether every operation can
// have happened at one moment between its call and its return. It is used by
// tests only.
//
// A register is what the registry has under one key: absent, or a value with
// the revision that wrote it. Revisions of a register only grow. The outcome of
// a write may stay unknown: then it may have happened at any moment after its
// call, or not at all. Operations that certainly did not happen are forgotten.
//
// Use a different value for each write: equal values hide errors.
//
// A Recorder may be used by any number of goroutines; Recorder.mu is the only
// lock. No goroutine is started, except by the checker for the time of Check.
// A history of more than MaxOps operations is refused by Begin with a panic: the
// time to check grows exponentially with the operations that are open at once,
// unknown ones included.
package lincheck

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// MaxOps is how many operations a Recorder takes.
const MaxOps = 200_000

// Kind is what an operation does.
type Kind uint8

// The kinds of operations.
const (
	Get    Kind = iota + 1
	Put         // write, whatever is there
	CAS         // write if the register has the revision Op.Revision (0: is absent)
	Delete      // make it absent, whatever is there
)

// Op is what a client asks for.
type Op struct {
	Kind     Kind
	Key      string
	Value    string // Put, CAS: what is written
	Revision uint64 // CAS: what is expected
}

// Result is the definite answer.
type Result struct {
	// Revision is, for Get, that of the value (0: absent); for Put and a CAS
	// that succeeded, that of the write. It is not used for Delete.
	Revision uint64
	Value    string // Get: the value
	Failed   bool   // CAS: the register did not have the revision
}

// Recorder is a history in the making.
type Recorder struct {
	mu    sync.Mutex
	clock int64 // counts calls and returns: their order is all that matters
	ops   []porcupine.Operation
}

// NewRecorder begins an empty history.
func NewRecorder() *Recorder { return &Recorder{} }

// Call is an operation under way. One of its methods must be called, once.
type Call struct {
	r  *Recorder
	op porcupine.Operation
}

// Begin notes that a client is about to send an operation. Clients count from
// 0; each does one operation at a time, and a client whose outcome is unknown
// may go on.
func (r *Recorder) Begin(client int, op Op) *Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clock >= 2*MaxOps {
		panic("lincheck: too many operations")
	}
	r.clock++
	return &Call{r: r, op: porcupine.Operation{ClientId: client, Input: op, Call: r.clock}}
}

// Done notes the definite answer.
func (c *Call) Done(res Result) { c.end(outcome{Result: res}) }

// Unknown notes that nobody knows whether the operation happened.
func (c *Call) Unknown() {
	if c.op.Input.(Op).Kind != Get {
		c.end(outcome{unknown: true})
	}
}

// Failed notes that the operation certainly did not happen and never will.
func (c *Call) Failed() {}

func (c *Call) end(o outcome) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.clock++
	c.op.Output, c.op.Return = o, c.r.clock
	if o.unknown {
		c.op.Return = math.MaxInt64
	}
	c.r.ops = append(c.r.ops, c.op)
}

// outcome is what is known at the end.
type outcome struct {
	Result
	unknown bool
}

// history is a copy of the operations so far.
func (r *Recorder) history() []porcupine.Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops)
}

// Len is how many operations count so far.
func (r *Recorder) Len() int { return len(r.history()) }

// Check returns nil if the history is linearizable, a *ViolationError if it is
// not, and ErrUndecided if the time did not suffice to tell.
func (r *Recorder) Check(timeout time.Duration) error {
	ops := r.history()
	m := registers()
	switch res := porcupine.CheckOperationsTimeout(m, ops, timeout); res {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return ErrUndecided
	}
	for _, part := range m.Partition(ops) {
		if porcupine.CheckOperationsTimeout(m, part, timeout) == porcupine.Illegal {
			return &ViolationError{Key: part[0].Input.(Op).Key, History: describe(m, part)}
		}
	}
	return &ViolationError{}
}

// WriteHTML writes a picture of the history to a file, for people.
func (r *Recorder) WriteHTML(path string, timeout time.Duration) error {
	m := registers()
	_, info := porcupine.CheckOperationsVerbose(m, r.history(), timeout)
	return porcupine.VisualizePath(m, info, path)
}

// ErrUndecided says that Check ran out of time.
const ErrUndecided = constError("lincheck: the history was not decided in time; use fewer clients or more keys")

type constError string

func (e constError) Error() string { return string(e) }

// ViolationError is a history that no linearizable system can have.
type ViolationError struct {
	Key     string
	History string // the operations on the key in the order of their calls
}

func (e *ViolationError) Error() string {
	return fmt.Sprintf("lincheck: the history of %s is not linearizable:\n%s", e.Key, e.History)
}

func describe(m porcupine.Model, ops []porcupine.Operation) string {
	ops = slices.Clone(ops)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, o := range ops {
		end := fmt.Sprint(o.Return)
		if o.Return == math.MaxInt64 {
			end = "?"
		}
		fmt.Fprintf(&b, "  [%d, %s] client %d: %s\n", o.Call, end, o.ClientId, m.DescribeOperation(o.Input, o.Output))
	}
	return b.String()
}
