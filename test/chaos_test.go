package test

import (
	"flag"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"ssi/internal/api"
	"ssi/internal/id"
	"ssi/lab"
)

var (
	chaosSeed   = flag.Uint64("chaos.seed", 0, "seed of the faults of TestChaos (0: another one each time)")
	chaosFaults = flag.Int("chaos.faults", 10, "how many faults TestChaos makes at most")
)

// chaos makes faults of nodes 1 to 3, of which node 1 is never off or paused and
// node 2 is not off. None of them lasts as long as a lease.
type chaos struct {
	*cluster
	rng  *rand.Rand
	made map[string]int
}

// last lets a few commands on node 1 go by, which is as long as a fault lasts.
func (x *chaos) last() {
	for range 1 + x.rng.IntN(8) {
		x.do(1, "true")
	}
}

// fault makes one and ends it.
func (x *chaos) fault() {
	x.t.Helper()
	a, b := id.Node(1+x.rng.IntN(3)), id.Node(1+x.rng.IntN(2))
	if b >= a {
		b++
	}
	switch kind := x.rng.IntN(8); {
	case kind < 3:
		x.made["killed daemons"]++
		x.killNodeRole(a)
	case kind < 5:
		x.made["pauses"]++
		n := id.Node(2 + x.rng.IntN(2))
		x.ok(x.Pause(x.ctx(), n))
		x.last()
		x.ok(x.Resume(x.ctx(), n))
	default:
		x.made["cuts"]++
		x.ok(x.Cut(x.ctx(), a, b, kind == 5))
		x.last()
		x.ok(x.Heal(x.ctx(), a, b))
	}
}

// crash cuts the power of node 3 and turns it on again.
func (x *chaos) crash() {
	x.t.Helper()
	x.made["crashes"]++
	x.ok(x.Crash(x.ctx(), 3))
	x.last()
	x.ok(x.StartNode(x.ctx(), 3))
	x.state(1, 3, api.Up)
	x.await(3, "serving", func(s *api.ClusterStatus) bool { return s.Serving })
}

// TestChaos: 10,000 signals go to processes of two nodes while daemons are killed,
// nodes pause, links are cut and one of the nodes loses power, at random. Each signal
// is delivered once, or its sender was told an error, or its receiver died with its
// node.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("replay: -run TestChaos -chaos.seed %d", seed)
	dir := buildStorm(t)
	c := start(t, 3, profile("lan"), func(o *lab.Options) { o.Share, o.Seed = append(o.Share, dir), seed })
	epoch := len(c.history(1))
	x := &chaos{c, rand.New(rand.NewPCG(seed, 0)), map[string]int{}}
	// A pause after each signal, so that it is not over before the faults.
	safe, doomed := startStorm(c, dir, 2, 2, 1000), startStorm(c, dir, 3, 2, 1000)
	crash := x.rng.IntN(*chaosFaults)
	for i := 0; i < *chaosFaults && (safe.sending() || doomed.sending()); i++ {
		if i == crash {
			x.crash()
		} else {
			x.fault()
		}
	}
	c.eventually("the senders end", func() bool { return !safe.sending() && !doomed.sending() })
	t.Logf("faults: %v", x.made)

	// A node may have gone down because the machine was too busy; then its receiver died with it.
	down := func(n id.Node) bool {
		return slices.ContainsFunc(c.history(1)[epoch:], func(tr api.Transition) bool { return tr.Node == n && tr.To == api.Down })
	}
	for _, s := range []*storm{safe, doomed} {
		switch {
		case !down(s.at):
			s.account()
		case s.at == safe.at && x.made["crashes"] == 0:
			t.Errorf("node %d went down without a fault that lasts", s.at)
		default:
			s.accountDead()
		}
	}
}

// accountDead checks what the senders were told of a receiver that died with its
// node. When the node is back, another process can have its number.
func (s *storm) accountDead() {
	s.t.Helper()
	errors := map[syscall.Errno]int{}
	for v, e := range s.results() {
		if e != 0 && e != syscall.ESRCH && e != syscall.EIO {
			s.t.Errorf("node %d, value %d: %v", s.at, v, e)
		}
		errors[e]++
	}
	if errors[syscall.ESRCH] == 0 {
		s.t.Errorf("node %d: nobody was told that the receiver is gone", s.at)
	}
	s.t.Logf("node %d, which died: %v", s.at, errors)
}
