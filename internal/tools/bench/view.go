package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"ssi/internal/id"
)

const (
	viewNodes   = 8
	viewPerNode = 125 // processes
	viewBudget  = 50  // ms
	farMany     = 2000
	farBudget   = 1.5 // times native
	viewRounds  = 30
	viewTime    = 20 * time.Second // for all processes to be in the view
)

// measureProc measures the stock ps where it sees the processes of all nodes.
func measureProc(ctx context.Context, s *site) ([]Result, error) {
	all := Result{Figure: fmt.Sprintf("ps aux (procps), %d nodes of %d processes", viewNodes, viewPerNode), Unit: ms, Budgets: []Budget{{Limit: viewBudget}}}
	far := Result{Figure: fmt.Sprintf("ps aux (procps), %d remote processes", farMany), Unit: ms, Budgets: []Budget{{Limit: farBudget, Times: true}}}
	spread := map[id.Node]int{}
	for n := id.Node(1); n <= viewNodes; n++ {
		spread[n] = viewPerNode
	}
	var results []Result
	err := s.comparePS(ctx, &all, viewNodes, spread)
	if err == nil {
		all.Peers = append(all.Peers, s.pdsh(ctx))
		results = append(results, all)
		if err = s.comparePS(ctx, &far, 2, map[id.Node]int{2: farMany}); err == nil {
			results = append(results, far)
		}
	}
	return results, err
}

// comparePS measures ps on node 1 of a lab of its own whose nodes have so many
// processes that sleep, beside ps in a PID namespace that has as many in all.
func (s *site) comparePS(ctx context.Context, r *Result, nodes int, spread map[id.Node]int) (err error) {
	if err := s.startNodes(ctx, nodes); err != nil {
		return err
	}
	defer func() { // before the next lab
		if e := s.endLab(); err == nil {
			err = e
		}
	}()
	total := 0
	for n := id.Node(1); n <= id.Node(nodes); n++ {
		if spread[n] == 0 {
			continue
		}
		w, err := s.startWorker(ctx, n, byLogin)
		if err != nil {
			return err
		}
		defer w.close()
		if err := sleepers(ctx, w, spread[n]); err != nil {
			return err
		}
		total += spread[n]
	}
	viewer, err := s.startWorker(ctx, 1, byLogin)
	if err != nil {
		return err
	}
	defer viewer.close()
	seen, err := sees(ctx, viewer, total)
	if err != nil {
		return err
	}
	alone, err := s.startWorker(ctx, 0, apart)
	if err != nil {
		return err
	}
	defer alone.close()
	if err := sleepers(ctx, alone, total); err != nil {
		return err
	}
	native, err := sees(ctx, alone, total)
	if err != nil {
		return err
	}
	p := &pair{viewer, alone}
	ours, theirs, err := p.compare(ctx, viewRounds, jobProcs, order{Load: load{Parallel: 1, For: 20 * time.Second, Max: 2}, Argv: []string{"ps", "aux"}})
	if err != nil {
		return err
	}
	r.Stats = statsOf(ms, durations(ms, ours))
	r.Peers = []Peer{{Name: fmt.Sprintf("ps aux, native /proc, %d processes", total), Stats: statsOf(ms, durations(ms, theirs))}}
	r.Note = fmt.Sprintf("%d processes in the view, %d in the native /proc", seen, native)
	return nil
}

// sleepers lets a worker hold processes.
func sleepers(ctx context.Context, w *worker, n int) error {
	o := order{Load: load{For: time.Minute}, Argv: []string{"sleep", "3600"}, Count: n}
	_, err := w.do(ctx, jobHold, o)
	return err
}

// sees waits until a worker sees at least n processes in /proc.
func sees(ctx context.Context, w *worker, n int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	for {
		got, err := w.do(ctx, jobCount, order{})
		if err != nil {
			return 0, err
		}
		if got.Count >= n {
			return got.Count, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s: %d of %d processes are in /proc after %v", w.name, got.Count, n, viewTime)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// pdsh is what administrators do without ssi: ps by ssh on each of as many nodes
// at once. There is one sshd, so the nodes are connections to it, and each ps is
// of a PID namespace with as many processes as a node has.
func (s *site) pdsh(ctx context.Context) Peer {
	p := Peer{Name: fmt.Sprintf("pdsh ps aux on %d nodes by ssh", viewNodes)}
	got, err := s.runPdsh(ctx)
	if err != nil {
		p.Error = err.Error()
		return p
	}
	p.Stats = statsOf(ms, durations(ms, got.Durations))
	return p
}

func (s *site) runPdsh(ctx context.Context) (samples, error) {
	if _, err := exec.LookPath("pdsh"); err != nil {
		return samples{}, fmt.Errorf("%w: apt-get install pdsh", err)
	}
	if _, err := s.sshServer(ctx); err != nil {
		return samples{}, err
	}
	node, err := s.startWorker(ctx, 0, apart)
	if err != nil {
		return samples{}, err
	}
	defer node.close()
	if err := sleepers(ctx, node, viewPerNode); err != nil {
		return samples{}, err
	}
	list := []string{"nsenter", "-t", strconv.Itoa(<-node.pid), "-m", "-p", "ps", "aux"}
	argv := append([]string{"pdsh", "-R", "exec", "-w", fmt.Sprintf("node[1-%d]", viewNodes)}, sshArgv(list...)...)
	return startProcesses(ctx, load{Parallel: 1, For: time.Minute, Max: 20}, argv)
}
