package core

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"ssi/cluster/member"
	"ssi/internal/id"
	"ssi/internal/simnet"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "replay only the schedule with this seed")
	schedulesFlag = flag.Uint64("schedules", 0, "how many schedules to run (0: 2,000, or 200 with the race detector)")
	firstFlag     = flag.Uint64("first", 1, "seed of the first schedule")
)

// chaos is one schedule: a cluster of random shape under random faults.
type chaos struct {
	*world
	end     time.Duration // of the faults
	ops     int
	restart map[id.Node]bool // a restart is due
}

func newChaos(seed uint64, f faults) *chaos {
	tm, err := TimingFor("fast")
	if err != nil {
		panic(err)
	}
	size := 1 + int(seed%7)
	w := newWorld(seed, size, tm)
	w.faults = f
	r := w.Rand()
	w.wire = seed%8 == 0
	w.maxVoters = []int{0, 0, 3, 5, 7, 1}[r.IntN(6)]
	if w.maxVoters == 1 && size > 1 && r.IntN(2) == 0 {
		w.maxVoters = 3
	}
	if r.IntN(2) == 0 {
		w.snapEvery = 5 + r.Uint64N(60)
	}
	if r.IntN(2) == 0 {
		w.cleanDelay = 800 * time.Millisecond
	}
	for _, n := range w.nodes[1:] {
		n.info.Capable = r.IntN(5) > 0
	}
	if size >= 3 && r.IntN(4) == 0 {
		n := w.nodes[size-1]
		n.info.Capable, n.info.Witness = false, true
	}
	return &chaos{world: w, end: 4*time.Second + time.Duration(r.Int64N(int64(5*time.Second))), restart: map[id.Node]bool{}}
}

// badWeather sets how the links behave while faults go on.
func (w *chaos) badWeather() {
	r := w.Rand()
	c := simnet.Conditions{MinDelay: 50 * time.Microsecond, MaxDelay: time.Millisecond}
	if r.IntN(2) == 0 {
		c.Loss = r.Float64() * 0.15
	}
	if r.IntN(2) == 0 {
		c.Duplicate = r.Float64() * 0.2
	}
	if r.IntN(3) == 0 {
		c.MaxDelay = 30 * time.Millisecond
	}
	if r.IntN(2) == 0 {
		c.Spike, c.SpikeMax = r.Float64()*0.05, 1500*time.Millisecond
	}
	w.Conditions = c
	if r.IntN(4) == 0 {
		w.crashRate = 0.0003
	}
}

// mayWipe reports whether consensus survives the loss of n's durable log, in
// every configuration that any node knows of.
func (w *chaos) mayWipe(n *simNode) bool {
	if n.disk == nil {
		return !n.boot
	}
	intact := func(x uint64) bool {
		m := w.node(nodeOf(x))
		return m != n && m != nil && m.disk != nil && m.disk.raftID == x
	}
	pair := true // of two, one is enough, see survivor.go
	survives := func(ids []uint64) bool {
		left := 0
		for _, x := range ids {
			if intact(x) {
				left++
			}
		}
		return len(ids) == 0 || left > len(ids)/2 || pair && left == 1
	}
	for _, k := range w.nodes {
		if k.core == nil {
			if k.disk != nil { // what it knows cannot be asked
				return false
			}
			continue
		}
		conf := k.core.rep.conf
		pair = len(raftIDs(conf)) == 2
		if len(conf.GetVotersOutgoing()) > 0 || !survives(conf.GetVoters()) || !survives(raftIDs(conf)) {
			return false
		}
		if k.disk == nil {
			continue
		}
		// Changes that are in its log may be in force before it knows.
		last, _ := k.disk.storage.LastIndex()
		for i := k.core.rep.index + 1; i <= last; i++ {
			es, err := k.disk.storage.Entries(i, i+1, 1)
			if err == nil && es[0].GetType() != raftpb.EntryNormal {
				return false
			}
		}
	}
	return true
}

// fault does one random bad thing.
func (w *chaos) fault() {
	r := w.Rand()
	n := w.nodes[r.IntN(len(w.nodes))]
	switch r.IntN(11) {
	case 0, 1: // crash, with or without its state
		if n.core == nil {
			return
		}
		wipe := r.IntN(2) == 0 && w.mayWipe(n)
		n.crash()
		if wipe {
			w.trace("n%d loses its state", n.num)
			n.disk = nil
			n.goodClock = true
		}
		w.After(time.Duration(r.Int64N(int64(3*time.Second))), func() {
			if n.core == nil && !n.stopped {
				n.start(true)
			}
		})
	case 2: // the daemon alone restarts
		if n.core != nil {
			n.crash()
			w.After(time.Duration(r.Int64N(int64(300*time.Millisecond))), func() {
				if n.core == nil && !n.stopped {
					n.start(false)
				}
			})
		}
	case 3, 4: // pause
		w.trace("n%d pauses", n.num)
		n.pause()
		w.After(time.Duration(r.Int64N(int64(2*time.Second))), func() { w.trace("n%d resumes", n.num); n.resume() })
	case 5, 6: // partition in two
		side := r.Uint64()
		w.trace("partition %b", side&0x7f)
		for i := range w.nodes {
			for j := range w.nodes {
				if side>>i&1 != side>>j&1 {
					w.Cut(i+1, j+1)
				}
			}
		}
		w.After(time.Duration(r.Int64N(int64(3*time.Second))), func() { w.trace("healed"); w.Heal() })
	case 7: // one way
		m := w.nodes[r.IntN(len(w.nodes))]
		w.trace("cut %d to %d", n.num, m.num)
		w.Cut(int(n.num), int(m.num))
		w.After(time.Duration(r.Int64N(int64(3*time.Second))), func() { w.Join(int(n.num), int(m.num)) })
	case 8: // one node alone, the leader if there is one
		if l := w.initHolder(); l != nil && r.IntN(2) == 0 {
			n = l
		}
		w.trace("n%d cut off", n.num)
		for _, m := range w.nodes {
			w.Cut(int(n.num), int(m.num))
			if r.IntN(4) > 0 {
				w.Cut(int(m.num), int(n.num))
			}
		}
		w.After(time.Duration(r.Int64N(int64(3*time.Second))), func() { w.trace("healed"); w.Heal() })
	case 10: // an orderly departure, and back after a while
		if n.core == nil || n.core.leaving {
			return
		}
		w.trace("n%d leaves", n.num)
		n.do(func() { n.core.Leave("test") })
		life := n.life
		w.After(time.Duration(r.Int64N(int64(4*time.Second))), func() {
			if n.life == life {
				w.trace("n%d has left: %v", n.num, n.status.Left)
				n.crash()
				w.After(time.Duration(r.Int64N(int64(time.Second))), func() {
					if n.core == nil {
						n.start(true)
					}
				})
			}
		})
	case 9: // an operator declares a node dead
		if n.core != nil {
			m := w.nodes[r.IntN(len(w.nodes))]
			cmd := member.Command{Op: member.SetState, Node: m.num, To: member.KCleanup, Cause: "test"}
			n.propose(Membership, cmd.Encode(), 2*time.Second, func(Outcome) {})
		}
	}
}

// work is one step of a client at a random node.
func (w *chaos) work(client int) {
	r := w.Rand()
	n := w.nodes[r.IntN(len(w.nodes))]
	w.ops++
	key := fmt.Sprintf("k%d", r.IntN(2))
	timeout := 100*time.Millisecond + time.Duration(r.Int64N(int64(2*time.Second)))
	if r.IntN(2) == 0 || n.info.Witness {
		w.write(client, n, fmt.Sprintf("c%d-%d", client, w.ops), key, timeout)
	} else {
		w.read(client, n, key, timeout)
	}
}

// every calls f at random times, gap apart on average, until t.
func (w *chaos) every(gap, t time.Duration, f func()) {
	at := w.Now() + time.Duration(w.Rand().Int64N(int64(2*gap)))
	if at < t {
		w.At(at, func() { f(); w.every(gap, t, f) })
	}
}

// run plays the schedule: start, faults, peace, and the demand that all is well.
func (w *chaos) run() {
	watch := func() bool { w.check(); return w.failed() }
	w.startAll()
	w.every(time.Duration(200+w.Rand().IntN(1500))*time.Millisecond, w.end, w.fault)
	for c := range 3 {
		w.every(120*time.Millisecond, w.end+time.Second, func() { w.work(c) })
	}
	if w.Run(300*time.Millisecond, watch) {
		return
	}
	w.badWeather()
	if w.Run(w.end, watch) {
		return
	}
	w.trace("peace")
	w.Heal()
	w.Conditions = simnet.Conditions{MinDelay: 50 * time.Microsecond, MaxDelay: time.Millisecond}
	w.crashRate = 0
	for _, n := range w.nodes {
		if n.paused {
			n.resume()
		}
		if n.core != nil && n.core.leaving {
			n.crash()
		}
		if n.core == nil {
			n.start(true)
		}
	}
	// What was in flight comes to its end first: pauses, restarts, delays.
	if w.Run(w.end+3*time.Second, watch) {
		return
	}
	if !w.Run(w.Now()+25*time.Second, func() bool { return watch() || w.up() }) {
		w.violate("not settled 28 s after all faults ended\n%s", w.states())
	}
	if w.failed() {
		return
	}
	for _, n := range w.nodes {
		w.write(100+int(n.num), n, fmt.Sprintf("last-%d", n.num), "last", 3*time.Second)
	}
	w.Run(w.Now()+4*time.Second, func() bool { return watch() || len(w.pending) == 0 })
	if w.failed() {
		return
	}
	w.Run(w.Now()+300*time.Millisecond, watch) // all nodes come to the same end
	for _, n := range w.nodes {
		if name := fmt.Sprintf("last-%d", n.num); !w.acked[name] {
			w.violate("after peace a write through node %d is not acknowledged\n%s", n.num, w.states())
		}
	}
	w.finish(true)
}

// schedule runs one seed; on a failure it runs it again with its trace on.
func schedule(seed uint64, f faults) (failure string) {
	once := func(trace bool) (w *chaos, failed bool) {
		w = newChaos(seed, f)
		w.tracing = trace
		defer func() {
			if p := recover(); p != nil {
				w.violate("panic: %v\n%s", p, debug.Stack())
				failed = true
			}
		}()
		w.run()
		return w, w.failed()
	}
	w, failed := once(false)
	if !failed {
		return ""
	}
	first := w.failures[0]
	w, failed = once(true)
	if !failed || w.failures[0] != first {
		return fmt.Sprintf("seed %d failed, and then not in the same way: the simulation is not deterministic\n%s\n%s", seed, first, w.report())
	}
	return w.report()
}

// TestSameSeedSameRun plays schedules twice: what happens must not depend on
// anything but the seed, or a failing one could not be replayed.
func TestSameSeedSameRun(t *testing.T) {
	for seed := uint64(1); seed <= 14; seed++ {
		var traces [2][]string
		for i := range traces {
			w := newChaos(seed, faults{})
			w.tracing = true
			w.run()
			traces[i] = append(w.traceLines, w.states())
		}
		if !slices.Equal(traces[0], traces[1]) {
			t.Errorf("seed %d gives two different runs", seed)
		}
	}
}

// TestMain makes garbage collections rare: memory that comes and goes costs the
// simulation more than the protocol does.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

func TestSchedules(t *testing.T) {
	if *seedFlag != 0 {
		if f := schedule(*seedFlag, faults{}); f != "" {
			t.Fatalf("seed %d:\n%s", *seedFlag, f)
		}
		return
	}
	count := *schedulesFlag
	if count == 0 {
		count = 2000
		if raceDetector {
			count = 200
		}
	}
	var next atomic.Uint64
	var mu sync.Mutex
	failed := map[uint64]string{}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				mu.Lock()
				stop := len(failed) >= 5
				mu.Unlock()
				if i >= count || stop {
					return
				}
				if f := schedule(*firstFlag+i, faults{}); f != "" {
					mu.Lock()
					failed[*firstFlag+i] = f
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d schedules, seeds %d to %d", min(next.Load(), count), *firstFlag, *firstFlag+count-1)
	var seeds []uint64
	for s := range failed {
		seeds = append(seeds, s)
	}
	slices.Sort(seeds)
	for i, s := range seeds {
		if i == 0 {
			t.Errorf("seed %d:\n%s", s, failed[s])
		}
		t.Errorf("replay: go test ./cluster/core -run TestSchedules -seed %d", s)
	}
}
