package lincheck

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
)

// register is a state of one key.
type register struct {
	present bool
	value   string
	// rev is the revision of the value. If it is 0 while present, a write of
	// unknown outcome put the value there and nobody has seen its revision.
	rev uint64
	min uint64 // revisions to come are greater
}

// registers is the model of independent keys.
func registers() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: partition,
		Init:      func() []any { return []any{register{}} },
		Step:      func(state, input, output any) []any { return step(state.(register), input.(Op), output.(outcome)) },
		Equal:     func(a, b any) bool { return a == b },
		DescribeOperation: func(input, output any) string {
			return text(input.(Op), output.(outcome))
		},
		DescribeState: func(s any) string { return fmt.Sprintf("%+v", s) },
	}
	return m.ToModel()
}

func partition(history []porcupine.Operation) [][]porcupine.Operation {
	byKey := map[string][]porcupine.Operation{}
	var keys []string
	for _, o := range history {
		k := o.Input.(Op).Key
		if byKey[k] == nil {
			keys = append(keys, k)
		}
		byKey[k] = append(byKey[k], o)
	}
	slices.Sort(keys)
	var out [][]porcupine.Operation
	for _, k := range keys {
		out = append(out, byKey[k])
	}
	return out
}

// step is all states that may follow s when op with outcome o happens; none if
// it cannot happen there.
func step(s register, op Op, o outcome) []any {
	switch op.Kind {
	case Get:
		if o.Revision == 0 {
			return only(s, !s.present)
		}
		if !s.present || s.value != o.Value {
			return nil
		}
		return learn(s, o.Revision)
	case Put:
		return write(s, op.Value, o)
	case Delete:
		return []any{register{min: s.min}}
	case CAS:
		return cas(s, op, o)
	}
	return nil
}

// only is s if it may be.
func only(s register, may bool) []any {
	if may {
		return []any{s}
	}
	return nil
}

// learn is s when its value turns out to have a revision.
func learn(s register, rev uint64) []any {
	if s.rev == 0 && rev > s.min {
		s.rev, s.min = rev, rev
	}
	return only(s, s.rev == rev)
}

// write is s after a write.
func write(s register, value string, o outcome) []any {
	if o.unknown {
		return []any{register{present: true, value: value, min: s.min}}
	}
	return only(register{present: true, value: value, rev: o.Revision, min: o.Revision}, o.Revision > s.min)
}

func cas(s register, op Op, o outcome) []any {
	// The states in which the register has the expected revision.
	var match []any
	if op.Revision == 0 {
		match = only(s, !s.present)
	} else if s.present {
		match = learn(s, op.Revision)
	}
	// Whether it may have another one.
	other := match == nil || s.present && s.rev == 0
	switch {
	case o.unknown:
		// Not done is the same as done after everything else, when nobody
		// looks any more; but then it may not match, which is allowed too.
		var out []any
		for _, m := range match {
			out = append(out, write(m.(register), op.Value, o)...)
		}
		if other {
			out = append(out, s)
		}
		return out
	case o.Failed:
		return only(s, other)
	}
	var out []any
	for _, m := range match {
		out = append(out, write(m.(register), op.Value, o)...)
	}
	return out
}

func text(op Op, o outcome) string {
	var call, res string
	switch op.Kind {
	case Get:
		call, res = fmt.Sprintf("get %s", op.Key), fmt.Sprintf("%q at %d", o.Value, o.Revision)
		if o.Revision == 0 {
			res = "absent"
		}
	case Put:
		call, res = fmt.Sprintf("put %s %q", op.Key, op.Value), fmt.Sprintf("at %d", o.Revision)
	case CAS:
		call, res = fmt.Sprintf("cas %s %d %q", op.Key, op.Revision, op.Value), fmt.Sprintf("at %d", o.Revision)
		if o.Failed {
			res = "failed"
		}
	case Delete:
		call, res = fmt.Sprintf("delete %s", op.Key), "done"
	}
	if o.unknown {
		res = "unknown"
	}
	return call + " -> " + cmp.Or(res, "?")
}
