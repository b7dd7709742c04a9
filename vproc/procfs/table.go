package procfs

import (
	"bytes"
	"maps"
	"slices"
	"sync"
	"time"

	"ssi/internal/id"
)

// process is a process elsewhere. It never changes; another one takes its place.
type process struct {
	node    id.Node
	pid     id.PID
	uid     uint32
	gid     uint32
	long    bool               // the command line is longer than what is here
	threads int64              // how many it has
	changed time.Time          // when this was learned; the kernel drops what it has cached of a file when it gets later
	files   [filePushed][]byte // as they are seen from here, by index in files
}

// peer is what is known of another node.
type peer struct {
	procs    map[id.PID]*process
	filling  map[id.PID]*process // what takes the place of procs when all of it has come; nil: nothing
	has      [len(files)]bool    // which files its processes have
	instance uint64
	at       uint64
	boot     int64     // btime there
	polled   time.Time // when the last poll of all processes that was answered began
	poll     *poll     // in progress
	next     *poll     // to be made after it
	late     bool      // it did not answer in time the last time it was waited for
}

// poll is one question for what changed.
type poll struct {
	began time.Time
	quick bool
	done  chan struct{}
}

// Table is the processes of all other nodes.
type Table struct {
	boot int64 // btime of this node

	mu     sync.Mutex
	self   id.Node             // 0: not known yet
	peers  map[id.Node]*peer   // the nodes that are UP, without this one
	guests map[id.PID]*process // those that live on another node than the home of their PID
	hidden map[id.PID]bool
	away   map[id.PID]id.Node // PIDs of this node: where their processes live
	placed map[id.PID]bool    // PIDs of others: their processes live here
	info   map[string][]byte  // /proc/cluster
	infoAt time.Time
}

func newTable(boot int64) *Table {
	return &Table{boot: boot, peers: map[id.Node]*peer{}, guests: map[id.PID]*process{}, info: map[string][]byte{}}
}

// stale is what the kernel must be told: names that lead nowhere any more or
// elsewhere, and files that it may have cached and that changed.
type stale struct {
	gone    []*process
	changed []change
}

// change is a process and which of its files changed; fileDir: its user.
type change struct {
	*process
	files [filePushed]bool
}

// setCluster takes over who is UP; the processes of the others are gone.
func (t *Table) setCluster(c *Cluster) (s stale) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.self = id.Node(c.GetSelf())
	for n, p := range t.peers {
		if slices.Contains(c.GetUp(), uint32(n)) {
			continue
		}
		delete(t.peers, n)
		for _, q := range p.procs {
			t.forget(q)
			s.gone = append(s.gone, q)
		}
	}
	for _, n := range c.GetUp() {
		if n := id.Node(n); n != t.self && t.peers[n] == nil {
			t.peers[n] = &peer{procs: map[id.PID]*process{}}
		}
	}
	t.hidden = pidSet(c.GetHidden())
	away := t.away
	t.away = map[id.PID]id.Node{}
	for _, m := range c.GetAway() {
		pid := id.PID(m.GetPid())
		t.away[pid] = id.Node(m.GetNode())
		if away[pid] == 0 { // its name may be known as that of what is a surrogate now
			s.gone = append(s.gone, &process{node: t.self, pid: pid})
		}
	}
	placed := t.placed
	t.placed = pidSet(c.GetPlaced())
	for pid := range t.placed {
		if !placed[pid] { // its name may be known as that of its surrogate
			s.gone = append(s.gone, &process{node: t.self, pid: pid})
		}
	}
	t.info, t.infoAt = map[string][]byte{}, time.Now()
	for _, f := range c.GetFiles() {
		t.info[f.GetName()] = f.GetContent()
	}
	return s
}

func pidSet(list []int32) map[id.PID]bool {
	set := make(map[id.PID]bool, len(list))
	for _, pid := range list {
		set[id.PID(pid)] = true
	}
	return set
}

func (t *Table) forget(q *process) {
	if t.guests[q.pid] == q {
		delete(t.guests, q.pid)
	}
}

// apply takes over the answer of node n to a poll that began at the time began.
func (t *Table) apply(n id.Node, rep *PollReply, began time.Time) (s stale) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[n]
	if p == nil { // it went meanwhile
		return s
	}
	p.instance, p.at, p.boot = rep.GetInstance(), rep.GetAt(), rep.GetBoot()
	if rep.GetFull() {
		p.filling = make(map[id.PID]*process, len(rep.GetProcesses()))
		p.has = [len(files)]bool{fileWhere: true}
		for i, f := range files {
			p.has[i] = p.has[i] || slices.Contains(rep.GetFiles(), f.name)
		}
	}
	now := time.Now()
	for _, m := range rep.GetProcesses() {
		q := t.process(n, m, rep.GetBoot(), now)
		switch {
		case q == nil || len(p.procs) >= maxProcesses || len(p.filling) >= maxProcesses:
		case p.filling != nil:
			p.filling[q.pid] = q
		default:
			t.put(p, q, &s)
		}
	}
	for _, m := range rep.GetGone() {
		if pid := id.PID(m); p.filling != nil {
			delete(p.filling, pid)
		} else if o := p.procs[pid]; o != nil {
			t.remove(p, o, &s)
		}
	}
	if rep.GetMore() {
		return s
	}
	if rep.GetAll() {
		p.polled = began
	}
	if p.filling != nil { // everything anew, and it is complete
		for pid, o := range p.procs {
			if p.filling[pid] == nil {
				t.remove(p, o, &s)
			}
		}
		for _, q := range p.filling {
			t.put(p, q, &s)
		}
		p.filling = nil
	}
	return s
}

func (t *Table) put(p *peer, q *process, s *stale) {
	o := p.procs[q.pid]
	if c, any := q.since(o); any {
		s.changed = append(s.changed, c)
	} else {
		q.changed = o.changed
	}
	p.procs[q.pid] = q
	if q.pid.Home() == q.node {
		return
	}
	if o == nil { // its name may be known as that of a local process, or of its surrogate
		s.gone = append(s.gone, q)
	}
	t.guests[q.pid] = q
}

func (t *Table) remove(p *peer, o *process, s *stale) {
	t.forget(o)
	delete(p.procs, o.pid)
	s.gone = append(s.gone, o)
}

// process makes a process of what node n told; nil is for what makes no sense.
func (t *Table) process(n id.Node, m *Process, boot int64, now time.Time) *process {
	pid := id.PID(m.GetPid())
	if pid <= 0 || pid >= 1<<pidBits || pid.Home() == 0 {
		return nil
	}
	q := &process{node: n, pid: pid, uid: m.GetUid(), gid: m.GetGid(), long: m.GetLong(), changed: now}
	q.files[fileStat] = rewriteStat(m.GetStat(), (boot-t.boot)*tick)
	if q.files[fileStat] == nil {
		return nil
	}
	q.threads = statField(m.GetStat(), statThreads)
	q.files[fileStatus] = rewriteStatus(m.GetStatus())
	q.files[fileStatm] = m.GetStatm()
	q.files[fileCmdline] = m.GetCmdline()
	q.files[fileComm] = comm(m.GetStat())
	return q
}

// since is what changed since the process was o; nil: unknown, so everything.
func (p *process) since(o *process) (c change, any bool) {
	c.process = p
	for i := range p.files {
		c.files[i] = o == nil || !bytes.Equal(p.files[i], o.files[i])
		any = any || c.files[i]
	}
	if o != nil && (p.uid != o.uid || p.gid != o.gid || p.long != o.long) {
		for i := range c.files {
			c.files[i], any = true, true
		}
	}
	return c, any
}

// find is the process elsewhere that has a PID, or nil. Where it lives counts
// more than whose window its PID is from: there a surrogate may have it, too.
func (t *Table) find(pid id.PID) *process {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(pid)
}

func (t *Table) get(pid id.PID) *process {
	if q := t.guests[pid]; q != nil {
		return q
	}
	if p := t.peers[pid.Home()]; p != nil {
		return p.procs[pid]
	}
	return nil
}

// on is the process with a PID as node n has it.
func (t *Table) on(n id.Node, pid id.PID) *process {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[n]; p != nil {
		return p.procs[pid]
	}
	return nil
}

// list is all processes elsewhere as /proc shows them, in the order of their PIDs.
func (t *Table) list() []*process {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, p := range t.peers {
		n += len(p.procs)
	}
	all := make([]*process, 0, n)
	for _, p := range t.peers {
		for pid, q := range p.procs {
			if t.get(pid) == q {
				all = append(all, q)
			}
		}
	}
	slices.SortFunc(all, byPID)
	return all
}

// listOn is the processes as node n has them.
func (t *Table) listOn(n id.Node) []*process {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*process
	if p := t.peers[n]; p != nil {
		all = slices.AppendSeq(make([]*process, 0, len(p.procs)), maps.Values(p.procs))
	}
	slices.SortFunc(all, byPID)
	return all
}

func byPID(a, b *process) int { return int(a.pid) - int(b.pid) }

// shift is how many ticks the boot of node n is after that of this one.
func (t *Table) shift(n id.Node) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[n]; p != nil {
		return (p.boot - t.boot) * tick
	}
	return 0
}

// itself is the number of this node; 0: not known yet.
func (t *Table) itself() id.Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.self
}

// has reports whether processes of node n have a file.
func (t *Table) has(n id.Node, file int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[n]
	return p != nil && p.has[file]
}

// up reports whether node n is another one and UP, and when it was last asked
// what changed.
func (t *Table) up(n id.Node) (polled time.Time, up bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[n]
	if p == nil {
		return time.Time{}, false
	}
	return p.polled, true
}

// nodes is the other nodes that are UP.
func (t *Table) nodes() []id.Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ns []id.Node
	for n := range t.peers {
		ns = append(ns, n)
	}
	slices.Sort(ns)
	return ns
}

// place says how a PID that exists on this node is to be shown: as a local process, or
// as what is known of the one elsewhere that it stands for (nil: nothing). standin tells whether a PID
// of another node is that of a stand-in; otherwise its process lives here, whatever other nodes tell.
func (t *Table) place(pid id.PID, standin func(id.PID) bool) (q *process, local bool) {
	t.mu.Lock()
	q, self, hidden := t.get(pid), t.self, t.hidden[pid]
	t.mu.Unlock()
	switch home := pid.Home(); {
	case hidden:
		return q, false
	case home == self: // else it is a surrogate; until the other node tells of the process, all there is
		return q, q == nil
	case home == 0 || !standin(pid):
		return nil, true
	}
	return q, false
}

// lives is the node on which the process of a PID of this node lives, 0 if it is here.
func (t *Table) lives(pid id.PID) id.Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.away[pid]
}

// clusterFile is a file of /proc/cluster.
func (t *Table) clusterFile(name string) (content []byte, at time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	content, ok = t.info[name]
	return content, t.infoAt, ok
}

// clusterFiles is the names in /proc/cluster.
func (t *Table) clusterFiles() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for name := range t.info {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
