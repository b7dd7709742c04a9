package core

import (
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/core/corepb"
	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// replica is everything that the log replicates: equal on all nodes at equal
// index.
type replica struct {
	members  *member.Machine
	app      Machine
	sessions map[id.Node]*session
	gens     map[id.Node]generation // newest raft ID generation given to a node number
	conf     *raftpb.ConfState
	added    map[uint64]uint64 // index by which a raft ID of conf had been added

	index, term uint64 // of the last entry applied
	noDedupe    bool
}

// session remembers what one life of a node had carried out, as far back as the
// node may ask again.
type session struct {
	incarnation id.Incarnation
	lowest      uint64 // everything below is settled and forgotten
	results     map[uint64]result
}

// generation is the newest raft ID generation of a node, and to which of its
// processes it was given.
type generation struct {
	last uint64
	to   process
}

// process tells the processes of a node number apart: by the incarnation it was
// started with, and by when, on the node's clock.
type process struct {
	origin uint64
	start  uint64
}

func (p process) String() string { return fmt.Sprintf("%d.%d", p.origin, p.start) }

// after reports whether p was started after q for sure.
func (p process) after(q process) bool {
	return p.origin > q.origin || p.origin == q.origin && p.start > q.start
}

// parseProcess reads what String wrote; anything else is no process.
func parseProcess(s string) process {
	var p process
	if _, err := fmt.Sscanf(s, "%d.%d", &p.origin, &p.start); err != nil {
		return process{}
	}
	return p
}

type result struct {
	index   uint64
	data    []byte
	dropped bool // data was longer than maxResult
}

func newReplica(app Machine) *replica {
	return &replica{
		members: member.New(), app: app,
		sessions: map[id.Node]*session{}, gens: map[id.Node]generation{},
		conf: raftpb.EnsureConfState(nil), added: map[uint64]uint64{},
	}
}

// appliedEntry is what one entry did.
type appliedEntry struct {
	env         *corepb.Envelope // nil for an empty entry and for a configuration
	result      []byte
	repeated    bool // it had been applied before: no result
	refused     bool // the proposer's life is over: not applied
	transitions []member.Transition
	conf        *raftpb.ConfChangeV2 // applied configuration change
}

// apply carries out the entry that follows the last one.
func (r *replica) apply(e *raftpb.Entry) (appliedEntry, error) {
	var a appliedEntry
	if e.GetIndex() != r.index+1 {
		return a, fmt.Errorf("entry %d cannot be applied after %d", e.GetIndex(), r.index)
	}
	r.index, r.term = e.GetIndex(), e.GetTerm()
	if e.GetType() != raftpb.EntryNormal {
		cc, err := confChangeOf(e)
		if err != nil {
			return a, err
		}
		if conf, err := changed(r.conf, cc); err == nil {
			r.conf, a.conf = conf, cc
			r.noteConf(cc)
		}
		return a, nil
	}
	if len(e.GetData()) == 0 {
		return a, nil
	}
	env := &corepb.Envelope{}
	if err := proto.Unmarshal(e.GetData(), env); err != nil {
		return a, fmt.Errorf("entry %d is damaged: %w", e.GetIndex(), err)
	}
	a.env = env
	n := id.Node(env.GetNode())
	if n == 0 {
		a.result, a.transitions = r.execute(env)
		return a, nil
	}
	s := r.sessions[n]
	inc := id.Incarnation(env.GetIncarnation())
	if s == nil || s.incarnation != inc {
		a.refused = true
		return a, nil
	}
	if env.GetLowest() > s.lowest {
		s.lowest = env.GetLowest()
		maps.DeleteFunc(s.results, func(seq uint64, _ result) bool { return seq < s.lowest })
	}
	_, done := s.results[env.GetSeq()]
	if (done || env.GetSeq() < s.lowest) && !r.noDedupe {
		a.repeated = true
		return a, nil
	}
	if !r.members.Get(n).State.Alive() { // what a dead node still wanted must not happen after its resources went to others
		a.refused = true
		return a, nil
	}
	a.result, a.transitions = r.execute(env)
	res := result{index: r.index, data: a.result}
	if len(res.data) > maxResult {
		res.data, res.dropped = nil, true
	}
	if s := r.sessions[n]; s != nil && s.incarnation == inc { // a removed node has none any more
		s.results[env.GetSeq()] = res
	}
	return a, nil
}

func (r *replica) execute(env *corepb.Envelope) ([]byte, []member.Transition) {
	if Kind(env.GetKind()) == App {
		return r.app.Apply(r.index, env.GetData()), nil
	}
	if Kind(env.GetKind()) == opening {
		return nil, nil
	}
	var ts []member.Transition
	cmd, err := member.DecodeCommand(env.GetData())
	if err == nil {
		err = mayPropose(id.Node(env.GetNode()), cmd)
	}
	if err == nil {
		ts, err = r.members.Apply(cmd, env.GetWall())
	}
	for _, t := range ts {
		switch {
		case t.Init:
		case t.To == member.ComingUp:
			r.sessions[t.Node] = &session{incarnation: t.Incarnation, results: map[uint64]result{}}
		case t.To == member.NeverUp:
			delete(r.sessions, t.Node)
		}
	}
	return member.ResultOf(r.members.Epoch(), err).Encode(), ts
}

// mayPropose reports whether node n (0: the leader itself) may ask for cmd.
func mayPropose(n id.Node, cmd member.Command) error {
	ok := true
	switch cmd.Op {
	case member.Join, member.Expire, member.InitTaken, member.CleanupDone:
		ok = n == 0
	case member.MarkUp, member.Leave:
		ok = n == cmd.Node
	}
	if !ok {
		return errno.New(errno.Permission, string(cmd.Op), cmd.Node, "node %d may not ask for this", n)
	}
	return nil
}

// noteConf keeps the generations and the ages of the raft IDs.
func (r *replica) noteConf(cc *raftpb.ConfChangeV2) {
	for _, ch := range cc.GetChanges() {
		x := ch.GetNodeId()
		switch ch.GetType() {
		case raftpb.ConfChangeAddNode, raftpb.ConfChangeAddLearnerNode:
			if x>>16 > r.gens[nodeOf(x)].last {
				r.gens[nodeOf(x)] = generation{last: x >> 16, to: parseProcess(string(cc.GetContext()))}
			}
			if _, ok := r.added[x]; !ok {
				r.added[x] = r.index
			}
		}
	}
	ids := raftIDs(r.conf)
	maps.DeleteFunc(r.added, func(x, _ uint64) bool { return !slices.Contains(ids, x) })
}

// raftIDFor is the raft ID that the configuration has for node n, or 0.
func (r *replica) raftIDFor(n id.Node) uint64 {
	var found uint64
	for _, x := range raftIDs(r.conf) {
		if nodeOf(x) == n {
			found = max(found, x)
		}
	}
	return found
}

// raftIDs is every raft ID of a configuration, ascending.
func raftIDs(cs *raftpb.ConfState) []uint64 {
	ids := slices.Concat(cs.GetVoters(), cs.GetVotersOutgoing(), cs.GetLearners(), cs.GetLearnersNext())
	slices.Sort(ids)
	return slices.Compact(ids)
}

func confChangeOf(e *raftpb.Entry) (*raftpb.ConfChangeV2, error) {
	if e.GetType() == raftpb.EntryConfChange {
		cc := &raftpb.ConfChange{}
		if err := proto.Unmarshal(e.GetData(), cc); err != nil {
			return nil, fmt.Errorf("configuration entry %d is damaged: %w", e.GetIndex(), err)
		}
		return cc.AsV2(), nil
	}
	cc := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return nil, fmt.Errorf("configuration entry %d is damaged: %w", e.GetIndex(), err)
	}
	return cc, nil
}

// changed is the configuration cs after cc, or why cc does not fit. It decides
// for nodes with and without raft state alike.
func changed(cs *raftpb.ConfState, cc *raftpb.ConfChangeV2) (*raftpb.ConfState, error) {
	tr := tracker.MakeProgressTracker(1, 0)
	var err error
	if len(cs.GetVoters()) > 0 {
		if tr.Config, tr.Progress, err = confchange.Restore(confchange.Changer{Tracker: tr, LastIndex: 1}, cs); err != nil {
			return nil, err
		}
	}
	ch := confchange.Changer{Tracker: tr, LastIndex: 1}
	if cc.LeaveJoint() {
		tr.Config, tr.Progress, err = ch.LeaveJoint()
	} else if autoLeave, joint := cc.EnterJoint(); joint {
		tr.Config, tr.Progress, err = ch.EnterJoint(autoLeave, cc.GetChanges()...)
	} else {
		tr.Config, tr.Progress, err = ch.Simple(cc.GetChanges()...)
	}
	if err != nil {
		return nil, err
	}
	return tr.ConfState(), nil
}

// snapshot writes the whole state down.
func (r *replica) snapshot() ([]byte, error) {
	members, err := r.members.Snapshot()
	if err != nil {
		return nil, err
	}
	machine, err := r.app.Snapshot()
	if err != nil {
		return nil, err
	}
	st := &corepb.State{Members: members, Machine: machine}
	for _, n := range slices.Sorted(maps.Keys(r.sessions)) {
		s := r.sessions[n]
		ps := &corepb.Session{Node: uint32(n), Incarnation: uint64(s.incarnation), Lowest: s.lowest}
		for _, seq := range slices.Sorted(maps.Keys(s.results)) {
			res := s.results[seq]
			ps.Results = append(ps.Results, &corepb.Result{Seq: seq, Index: res.index, Data: res.data, Dropped: res.dropped})
		}
		st.Sessions = append(st.Sessions, ps)
	}
	for _, n := range slices.Sorted(maps.Keys(r.gens)) {
		st.Generations = append(st.Generations, &corepb.Generation{Node: uint32(n), Last: r.gens[n].last,
			Origin: r.gens[n].to.origin, Process: r.gens[n].to.start})
	}
	data, err := proto.Marshal(st)
	if err == nil && len(data) > MaxSnapshot {
		err = errno.New(errno.Full, "snapshot", 0, "the cluster's state of %d bytes is over the limit of %d", len(data), MaxSnapshot)
	}
	return data, err
}

// restore replaces the state by a snapshot's.
func (r *replica) restore(meta *raftpb.SnapshotMetadata, data []byte) error {
	st := &corepb.State{}
	if err := proto.Unmarshal(data, st); err != nil {
		return fmt.Errorf("snapshot at %d is damaged: %w", meta.GetIndex(), err)
	}
	if err := r.members.Restore(st.GetMembers()); err != nil {
		return err
	}
	if err := r.app.Restore(st.GetMachine()); err != nil {
		return fmt.Errorf("snapshot at %d: %w", meta.GetIndex(), err)
	}
	clear(r.sessions)
	for _, ps := range st.GetSessions() {
		s := &session{incarnation: id.Incarnation(ps.GetIncarnation()), lowest: ps.GetLowest(), results: map[uint64]result{}}
		for _, res := range ps.GetResults() {
			s.results[res.GetSeq()] = result{index: res.GetIndex(), data: res.GetData(), dropped: res.GetDropped()}
		}
		r.sessions[id.Node(ps.GetNode())] = s
	}
	clear(r.gens)
	for _, g := range st.GetGenerations() {
		r.gens[id.Node(g.GetNode())] = generation{last: g.GetLast(), to: process{g.GetOrigin(), g.GetProcess()}}
	}
	r.conf = proto.Clone(raftpb.EnsureConfState(meta.GetConfState())).(*raftpb.ConfState)
	clear(r.added)
	for _, x := range raftIDs(r.conf) {
		r.added[x] = meta.GetIndex()
	}
	r.index, r.term = meta.GetIndex(), meta.GetTerm()
	return nil
}

// snapshotAt is the present state as a raft snapshot.
func (r *replica) snapshotAt() (*raftpb.Snapshot, error) {
	data, err := r.snapshot()
	if err != nil {
		return nil, err
	}
	return &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		ConfState: proto.Clone(r.conf).(*raftpb.ConfState), Index: new(r.index), Term: new(r.term),
	}}, nil
}
