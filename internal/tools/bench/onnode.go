package main

import (
	"context"
	"fmt"
	"time"

	"ssi/internal/id"
)

const (
	onnodeBudget = 3   // ms, median
	onnodeRate   = 300 // a second
	oneByOne     = 6 * time.Second
	many         = 5 * time.Second
)

// measureOnnode measures remote execution as a user types it and as a program
// that runs all the time does it.
func measureOnnode(ctx context.Context, s *site) ([]Result, error) {
	onnode := []string{s.nodeBinary(), "onnode", "2", "true"}
	single := load{Parallel: 1, For: oneByOne, Max: 300}
	whole := Result{Figure: "onnode 2 true, whole process", Unit: ms, Budgets: []Budget{{Limit: onnodeBudget}}}
	client := Result{Figure: "the same by a running client", Unit: ms}

	if err := s.timed(ctx, &whole, jobProcs, order{Load: single, Argv: onnode}); err != nil {
		return nil, err
	}
	if err := s.timed(ctx, &client, jobRexec, order{Load: single, Argv: []string{"true"}, Node: 2}); err != nil {
		return nil, err
	}

	srv, sshErr := s.sshServer(ctx)
	keepErr := sshErr
	if sshErr == nil {
		keepErr = srv.keep(ctx)
	}
	sshPeer := func(name string, unit string, l load, err error, argv []string) Peer {
		p := Peer{Name: name}
		if err == nil {
			var got samples
			if got, err = startProcesses(ctx, l, argv); err == nil {
				p.Stats = statsIn(unit, got)
				return p
			}
		}
		p.Error = err.Error()
		return p
	}
	slow := load{Parallel: 1, For: oneByOne, Max: 40}
	whole.Peers = append(whole.Peers,
		sshPeer("ssh between two netns", ms, slow, sshErr, sshArgv("true")),
		sshPeer("ssh, shared connection", ms, single, keepErr, sharedArgv("true")))
	limits := []struct {
		name string
		argv []string
	}{
		{"fork+exec of /bin/true", []string{"/bin/true"}},
		{"fork+exec of an empty Go program", []string{s.empty}},
		{"fork+exec of `ssi version`", []string{s.nodeBinary(), "version"}},
	}
	for _, l := range limits {
		if l.argv[0] == "" {
			continue
		}
		p := Peer{Name: l.name}
		if got, err := s.inNode(ctx, 1, jobProcs, order{Load: single, Argv: l.argv}); err == nil {
			p.Stats = statsOf(ms, durations(ms, got.Durations))
		} else {
			p.Error = err.Error()
		}
		whole.Peers = append(whole.Peers, p)
	}
	results := []Result{whole, client}
	for _, parallel := range []int{2, 8} {
		l := load{Parallel: parallel, For: many}
		r := Result{Figure: fmt.Sprintf("onnode 2 true, %d at a time", parallel), Unit: perSec}
		if parallel == 8 {
			r.Budgets = []Budget{{Limit: onnodeRate}}
		}
		if got, err := s.inNode(ctx, 1, jobProcs, order{Load: l, Argv: onnode}); err == nil {
			r.Stats = statsOf(perSec, got.Rates)
		} else {
			r.Error = err.Error()
		}
		r.Peers = append(r.Peers, sshPeer("ssh between two netns", perSec, l, sshErr, sshArgv("true")))
		if parallel == 8 && s.empty != "" {
			p := Peer{Name: "fork+exec of an empty Go program"}
			if got, err := s.inNode(ctx, 1, jobProcs, order{Load: l, Argv: []string{s.empty}}); err == nil {
				p.Stats = statsOf(perSec, got.Rates)
			} else {
				p.Error = err.Error()
			}
			r.Peers = append(r.Peers, p)
		}
		results = append(results, r)
	}
	l := load{Parallel: 8, For: many}
	r := Result{Figure: "running client, 8 at a time", Unit: perSec}
	if got, err := s.inNode(ctx, 1, jobRexec, order{Load: l, Argv: []string{"true"}, Node: 2}); err == nil {
		r.Stats = statsOf(perSec, got.Rates)
	} else {
		r.Error = err.Error()
	}
	return append(results, r), nil
}

// timed does a job on node 1 that asks node 2, and notes what CPU time each took
// for a call: other than the time that passed, it hardly depends on what else the
// machine does.
func (s *site) timed(ctx context.Context, r *Result, job string, o order) error {
	var before, after [2]time.Duration
	var err error
	for i := range before {
		if before[i], err = s.cpuTime(id.Node(i + 1)); err != nil {
			return err
		}
	}
	got, err := s.inNode(ctx, 1, job, o)
	if err != nil {
		return err
	}
	for i := range after {
		if after[i], err = s.cpuTime(id.Node(i + 1)); err != nil {
			return err
		}
	}
	per := func(i int) string {
		return number(float64(after[i]-before[i]) / float64(time.Millisecond) / float64(len(got.Durations)))
	}
	r.Stats = statsOf(r.Unit, durations(r.Unit, got.Durations))
	r.Note = fmt.Sprintf("%s ms of CPU time on the caller's node and %s ms on the other one a command", per(0), per(1))
	return nil
}

func statsIn(unit string, s samples) Stats {
	if rate(unit) {
		return statsOf(unit, s.Rates)
	}
	return statsOf(unit, durations(unit, s.Durations))
}

// nodeBinary is the program on a node.
func (s *site) nodeBinary() string { return "/sbin/ssi" }

// measureDD measures what a command on another node can write into a pipe.
func measureDD(ctx context.Context, s *site) ([]Result, error) {
	dd := []string{"dd", "if=/dev/zero", "bs=1M", "status=none"}
	l := load{For: 6 * time.Second}
	r := Result{Figure: "onnode 2 dd if=/dev/zero into a pipe", Unit: mbPerSec}
	got, err := s.inNode(ctx, 1, jobRead, order{Load: l, Argv: append([]string{s.nodeBinary(), "onnode", "2"}, dd...)})
	if err != nil {
		return nil, err
	}
	r.Stats = statsOf(mbPerSec, got.Rates)
	ssh := Peer{Name: "ssh between two netns"}
	if _, err = s.sshServer(ctx); err == nil {
		got, err = readOutput(ctx, l.For, sshArgv(dd...))
	}
	if err == nil {
		ssh.Stats = statsOf(mbPerSec, got.Rates)
	} else {
		ssh.Error = err.Error()
	}
	local := Peer{Name: "dd into the same pipe, no network"}
	if got, err := s.inNode(ctx, 1, jobRead, order{Load: l, Argv: dd}); err == nil {
		local.Stats = statsOf(mbPerSec, got.Rates)
	} else {
		local.Error = err.Error()
	}
	r.Peers = []Peer{ssh, local}
	return []Result{r}, nil
}

// measurePS measures the list of all processes of the cluster.
func measurePS(ctx context.Context, s *site) ([]Result, error) {
	l := load{Parallel: 1, For: oneByOne, Max: 60}
	got, err := s.inNode(ctx, 1, jobProcs, order{Load: l, Argv: []string{s.nodeBinary(), "ps", "aux"}})
	if err != nil {
		return nil, err
	}
	r := Result{Figure: "ssi ps aux over 3 nodes", Unit: ms, Stats: statsOf(ms, durations(ms, got.Durations))}
	p := Peer{Name: "ps aux (procps), one node"}
	if got, err := s.inNode(ctx, 1, jobProcs, order{Load: l, Argv: []string{"ps", "aux"}}); err == nil {
		p.Stats = statsOf(ms, durations(ms, got.Durations))
	} else {
		p.Error = err.Error()
	}
	r.Peers = []Peer{p}
	return []Result{r}, nil
}
