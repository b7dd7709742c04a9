package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"strconv"
	"time"

	"ssi/internal/id"
)

const (
	unhookedBudget  = 1.4 // times native
	localKillBudget = 1.4 // times native
	caughtBudget    = 8   // µs
	remoteBudget    = 100 // µs, median
	remoteWorst     = 300 // µs
	forkBudget      = 1.1 // times native
	callsFor        = 200 * time.Millisecond
	remoteFor       = 5 * time.Second
	stormFor        = 10 * time.Second
	callsBinary     = shareDir + "/calls"
	stormBinary     = shareDir + "/storm"
)

// call is a system call that programs/calls.c makes, count of them a sample.
type call struct {
	name  string
	pid   int // of whom; 0: the caller
	count int
}

//go:embed programs/calls.c
var callsSource []byte

//go:embed programs/storm.c
var stormSource []byte

// measureGate measures what the filter costs those it lets pass and those it
// catches.
func measureGate(ctx context.Context, s *site) ([]Result, error) {
	p, err := s.startPair(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if err := compile(ctx, callsBinary, callsSource); err != nil {
		return nil, err
	}
	var results []Result
	for _, c := range []struct {
		figure, unit string
		call         call
		budget       Budget
		peer         string
	}{
		{"getppid, which the gate does not catch", ns, call{"getppid", 0, 2000}, Budget{Limit: unhookedBudget, Times: true}, "native, same node"},
		{"kill(self, 0)", ns, call{"kill", 0, 2000}, Budget{Limit: localKillBudget, Times: true}, "native, same node"},
		{"clusternode_num, a caught call", us, call{"clusternode_num", 0, 1}, Budget{Limit: caughtBudget}, "native, same node: ENOSYS"},
	} {
		ours, native, err := p.compare(ctx, 8, jobPrint, c.call.order(callsFor, 0))
		if err != nil {
			return results, err
		}
		results = append(results, Result{
			Figure: c.figure, Unit: c.unit, Budgets: []Budget{c.budget}, Stats: statsOf(c.unit, perCall(c.unit, ours, c.call.count)),
			Peers: []Peer{{Name: c.peer, Stats: statsOf(c.unit, perCall(c.unit, native, c.call.count))}},
		})
	}
	remote, err := s.remoteKill(ctx, p.ours)
	if err != nil {
		return results, err
	}
	o := order{Load: load{Parallel: 1, For: 3 * time.Second, Max: 30}, Argv: []string{"/bin/true"}}
	ours, native, err := p.compare(ctx, 8, jobProcs, o)
	if err != nil {
		return append(results, remote), err
	}
	results = append(results, remote, Result{
		Figure: "fork+exec of /bin/true by a user", Unit: ms, Budgets: []Budget{{Limit: forkBudget, Times: true}}, Stats: statsOf(ms, durations(ms, ours)),
		Peers: []Peer{{Name: "native, same node", Stats: statsOf(ms, durations(ms, native))}},
	})
	storm, err := s.storm(ctx, p.ours)
	return append(results, storm...), err
}

// perCall are samples of calls made count at a time.
func perCall(unit string, list []time.Duration, count int) []float64 {
	out := durations(unit, list)
	for i := range out {
		out[i] /= float64(count)
	}
	return out
}

// order is that of making the call for a time, with at most so many samples.
func (c call) order(d time.Duration, most int) order {
	return order{Load: load{For: d}, Argv: []string{
		callsBinary, c.name, strconv.Itoa(c.pid), strconv.Itoa(c.count), strconv.FormatInt(d.Milliseconds(), 10), strconv.Itoa(most),
	}}
}

// compile makes a program of ours that must be in C.
func compile(ctx context.Context, binary string, text []byte) error {
	src := binary + ".c"
	if err := os.WriteFile(src, text, 0o644); err != nil {
		return err
	}
	return command(ctx, "gcc", "-O2", "-o", binary, src)
}

// remoteKill measures a signal to a process of node 2 by a user of node 1.
func (s *site) remoteKill(ctx context.Context, by *worker) (Result, error) {
	r := Result{Figure: "kill(PID on node 2, 0)", Unit: us, Budgets: []Budget{{Limit: remoteBudget}, {Limit: remoteWorst, Worst: true}}}
	other, err := s.startWorker(ctx, 2, byLogin)
	if err != nil {
		return r, err
	}
	defer other.close()
	held, err := other.do(ctx, jobHold, order{Argv: []string{"sleep", "600"}, Count: 1})
	if err != nil {
		return r, err
	}
	pid := held.PIDs[0]
	if first, end := id.Node(2).Window(); pid < int(first) || pid >= int(end) {
		return r, fmt.Errorf("PID %d is not of node 2", pid)
	}
	got, err := by.do(ctx, jobPrint, call{"kill", pid, 1}.order(remoteFor, 20000))
	if err != nil {
		return r, err
	}
	r.Stats = statsOf(us, durations(us, got.Durations))
	peer := Peer{Name: "ssh, shared connection: kill -0"}
	srv, err := s.sshServer(ctx)
	if err == nil {
		err = srv.keep(ctx)
	}
	if err == nil {
		// The sshd is in the PID namespace of the run.
		l := load{Parallel: 1, For: oneByOne, Max: 100}
		got, err = startProcesses(ctx, l, sharedArgv("kill", "-0", strconv.Itoa(os.Getpid())))
	}
	if err == nil {
		peer.Stats = statsOf(us, durations(us, got.Durations))
	} else {
		peer.Error = err.Error()
	}
	r.Peers = []Peer{peer}
	return r, nil
}

// storm makes processes on node 1 as fast as can be and counts those whose PID is
// not of the node's window; and does the same without ssi.
func (s *site) storm(ctx context.Context, by *worker) ([]Result, error) {
	if err := compile(ctx, stormBinary, stormSource); err != nil {
		return nil, err
	}
	first, end := id.Node(1).Window()
	o := order{Load: load{For: stormFor}, Argv: []string{stormBinary, strconv.Itoa(int(stormFor.Seconds())), strconv.Itoa(int(first)), strconv.Itoa(int(end))}}
	before, err := s.status(ctx, 1)
	if err != nil {
		return nil, err
	}
	ours, err := by.do(ctx, jobPrint, o)
	if err != nil {
		return nil, err
	}
	after, err := s.status(ctx, 1)
	if err != nil {
		return nil, err
	}
	strays := Result{
		Figure: fmt.Sprintf("strays in %v of fork storm", stormFor), Unit: count, Budgets: []Budget{{Limit: 0}}, Stats: statsOf(count, []float64{float64(ours.Outside)}),
		Note: fmt.Sprintf("%d processes; the node itself noticed %d times that PIDs had left its window", ours.Count, after.Strays-before.Strays),
	}
	speed := Result{Figure: "processes made and ended in the storm", Unit: perSec, Stats: statsOf(perSec, ours.Rates)}
	peer := Peer{Name: "the same without ssi"}
	alone, err := s.startWorker(ctx, 0, apart)
	if err == nil {
		defer alone.close()
		var got samples
		got, err = alone.do(ctx, jobPrint, o)
		peer.Stats = statsOf(perSec, got.Rates)
	}
	if err != nil {
		peer.Error = err.Error()
	}
	speed.Peers = []Peer{peer}
	return []Result{strays, speed}, nil
}
