package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// checker holds what has happened in a world and checks the rules of the cluster
// against it at every event.
type checker struct {
	w        *world
	failures []string
	lenient  bool // two clusters were made on purpose

	initOf   map[uint64]id.Node // init holder by term
	history  []member.Transition
	declared map[[2]uint64]bool // node, incarnation that were declared dead
	hashes   map[uint64]uint64  // state of the kv by index
	applies  map[string]bool    // commands applied anywhere
	acked    map[string]bool    // commands acknowledged
	refused  map[string]bool    // commands that were said not to have happened

	ops     []porcupine.Operation
	pending map[int]*operation // open operations by client
	moves   int                // how often the init role changed its node
	last    id.Node
}

type operation struct {
	in   registerInput
	call time.Duration
	node *simNode
}

func newChecker(w *world) *checker {
	return &checker{
		w: w, initOf: map[uint64]id.Node{}, declared: map[[2]uint64]bool{}, hashes: map[uint64]uint64{},
		applies: map[string]bool{}, acked: map[string]bool{}, refused: map[string]bool{}, pending: map[int]*operation{},
	}
}

func (k *checker) violate(format string, args ...any) {
	if k.lenient {
		return
	}
	if len(k.failures) < 10 {
		msg := fmt.Sprintf("at %.4fs: ", k.w.Now().Seconds()) + fmt.Sprintf(format, args...)
		k.failures = append(k.failures, msg)
		k.w.trace("VIOLATION %s", msg)
	}
}

func (k *checker) failed() bool { return len(k.failures) > 0 }

// check is called whenever time has passed or a node has published a status.
func (k *checker) check() {
	var holder *simNode
	for _, n := range k.w.nodes {
		if n.core == nil {
			continue
		}
		if n.holdsInit() {
			if holder != nil {
				k.violate("two init holders at once: nodes %d (term %d) and %d (term %d)", holder.num, holder.status.Init.Term, n.num, n.status.Init.Term)
			}
			holder = n
			term := n.status.Init.Term
			if other, ok := k.initOf[term]; ok && other != n.num {
				k.violate("two init holders in term %d: nodes %d and %d", term, other, n.num)
			}
			k.initOf[term] = n.num
			if k.last != n.num {
				k.moves++
				k.last = n.num
				k.w.trace("init: node %d in term %d", n.num, term)
			}
		}
		if n.serving() && k.declared[[2]uint64{uint64(n.num), uint64(n.status.Incarnation)}] {
			k.violate("node %d serves in incarnation %d after it was declared dead", n.num, n.status.Incarnation)
		}
	}
}

// transitions compares what a node applied with the one history.
func (k *checker) transitions(n *simNode, out *Output) {
	if k.lenient {
		return
	}
	for _, t := range out.Transitions {
		i := int(t.Epoch) - 1
		switch {
		case i < len(k.history):
			if k.history[i] != t {
				k.violate("node %d has another history: transition %d is %+v there, %+v elsewhere", n.num, t.Epoch, t, k.history[i])
			}
		case i == len(k.history):
			k.history = append(k.history, t)
			if t.Init {
				k.w.trace("transition %d: init at node %d, term %d", t.Epoch, t.Node, t.Term)
				continue
			}
			k.w.trace("transition %d: node %d (%d) %v to %v: %s [n%d]", t.Epoch, t.Node, t.Incarnation, t.From, t.To, t.Cause, n.num)
			if t.To == member.KCleanup {
				k.declared[[2]uint64{uint64(t.Node), uint64(t.Incarnation)}] = true
				k.check()
			}
		default:
			k.violate("node %d applied transition %d before %d happened", n.num, t.Epoch, len(k.history)+1)
		}
	}
}

// applied is told of every command that a node's machine carries out.
func (k *checker) applied(n *simNode) func(index, hash uint64, name string, count int) {
	return func(index, hash uint64, name string, count int) {
		if h, ok := k.hashes[index]; ok && h != hash {
			k.violate("node %d: its state at entry %d differs from another node's", n.num, index)
		}
		k.hashes[index] = hash
		if count > 1 {
			k.violate("node %d: command %s was carried out %d times", n.num, name, count)
		}
		k.applies[name] = true
	}
}

func (k *checker) crashed(n *simNode) {
	for client, op := range k.pending {
		if op.node == n {
			delete(k.pending, client)
			k.unknown(client, op)
		}
	}
}

// unknown records an operation of which nobody knows whether it happened: a
// write may take effect at any time later, a read does not count.
func (k *checker) unknown(client int, op *operation) {
	if op.in.write {
		k.ops = append(k.ops, porcupine.Operation{ClientId: client, Input: op.in, Call: int64(op.call), Output: "", Return: int64(1 << 60)})
	}
}

// write and read are one operation of a client that has none open.
func (k *checker) write(client int, n *simNode, name, key string, timeout time.Duration) {
	if n.core == nil || k.pending[client] != nil {
		return
	}
	op := &operation{in: registerInput{write: true, key: key, value: name}, call: k.w.Now(), node: n}
	k.pending[client] = op
	n.propose(App, putCommand(name, key, name), timeout, func(o Outcome) {
		delete(k.pending, client)
		switch {
		case o.Err == nil:
			k.acked[name] = true
			if !k.applies[name] {
				k.violate("write %s acknowledged but applied nowhere", name)
			}
			k.ops = append(k.ops, porcupine.Operation{ClientId: client, Input: op.in, Call: int64(op.call), Output: "", Return: int64(k.w.Now())})
		case errno.Is(o.Err, errno.Unknown):
			k.unknown(client, op)
		default:
			k.refused[name] = true
			if k.applies[name] {
				k.violate("write %s was carried out, its client was told %q", name, o.Err)
			}
		}
	})
}

func (k *checker) read(client int, n *simNode, key string, timeout time.Duration) {
	if n.core == nil || k.pending[client] != nil {
		return
	}
	op := &operation{in: registerInput{key: key}, call: k.w.Now(), node: n}
	k.pending[client] = op
	n.barrier(timeout, func(o Outcome) {
		delete(k.pending, client)
		if o.Err == nil {
			k.ops = append(k.ops, porcupine.Operation{ClientId: client, Input: op.in, Call: int64(op.call), Output: n.app.Values[key], Return: int64(k.w.Now())})
		}
	})
}

// finish checks what can only be checked at the end of a settled run.
func (k *checker) finish(linearize bool) {
	for _, n := range k.w.nodes {
		if n.core == nil {
			continue
		}
		for _, name := range sortedNames(k.acked) {
			if n.app.Counts[name] == 0 {
				k.violate("acknowledged write %s is lost on node %d", name, n.num)
			}
		}
		for name := range n.app.Counts {
			if k.refused[name] {
				k.violate("write %s was carried out on node %d, its client was told it was not", name, n.num)
			}
			if n.app.Counts[name] > 1 {
				k.violate("write %s was carried out %d times on node %d", name, n.app.Counts[name], n.num)
			}
		}
	}
	if !linearize {
		return
	}
	ops := slices.Clone(k.ops)
	slices.SortStableFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	if porcupine.CheckOperationsTimeout(registerModel(), ops, 10*time.Second) == porcupine.Illegal {
		k.violate("the history of %d reads and writes is not linearizable", len(ops))
	}
}

func sortedNames(m map[string]bool) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

type registerInput struct {
	write      bool
	key, value string
}

// registerModel is a set of independent registers.
func registerModel() porcupine.Model {
	return porcupine.Model{
		Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			var keys []string
			for _, op := range ops {
				key := op.Input.(registerInput).key
				if byKey[key] == nil {
					keys = append(keys, key)
				}
				byKey[key] = append(byKey[key], op)
			}
			var parts [][]porcupine.Operation
			for _, key := range keys {
				parts = append(parts, byKey[key])
			}
			return parts
		},
		Init: func() any { return "" },
		Step: func(state, input, output any) (bool, any) {
			in := input.(registerInput)
			if in.write {
				return true, in.value
			}
			return output.(string) == state.(string), state
		},
		Equal: func(a, b any) bool { return a == b },
	}
}

// report is the failures and the end of the trace.
func (w *world) report() string {
	tail := w.traceLines[max(0, len(w.traceLines)-120):]
	return strings.Join(w.failures, "\n") + "\n--- trace:\n" + strings.Join(tail, "\n")
}

// states describes the nodes, for a run that does not settle.
func (w *world) states() string {
	var b strings.Builder
	for _, n := range w.nodes {
		if n.core == nil {
			fmt.Fprintf(&b, "n%d: not running (stopped %v)\n", n.num, n.stopped)
			continue
		}
		s := n.status
		fmt.Fprintf(&b, "n%d: inc %d %v serving %v (%s) lead %v init %v leader %d term %d raft %x voter %v voters %v applied %d conf %v cleanup %v problem %q\n",
			n.num, s.Incarnation, s.State, n.serving(), s.Reason, s.Lead.Held, s.Init.Held, s.Leader, s.Term, s.RaftID, s.Voter, s.Voters, s.Applied, n.core.rep.conf, s.Cleanup, s.Problem)
	}
	return b.String()
}
