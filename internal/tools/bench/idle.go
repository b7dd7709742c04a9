package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ssi/internal/id"
	"ssi/lab"
)

const (
	idleBudget   = 0.5 // % of a core
	memoryBudget = 60  // MB, all roles of a node
	initBudget   = 12  // MB, PID 1
	sizeBudget   = 25  // MB
	readyBudget  = 2   // s
	idleSettle   = 3 * time.Second
	idleWindow   = 3 * time.Second
	idleWindows  = 10
	labStarts    = 7
)

// measureIdle measures nodes that do nothing, in both profiles: CPU time by their
// cgroups, and memory.
func measureIdle(ctx context.Context, s *site) ([]Result, error) {
	if err := s.startProfile(ctx, profileLAN); err != nil {
		return nil, err
	}
	e, etcdErr := startEtcd(ctx)
	if etcdErr == nil {
		defer e.close()
	}
	lan, err := s.idleCPU(ctx)
	if err != nil {
		return nil, err
	}
	lan.Figure = "idle node, share of a core (lan)"
	cpu, memory := Peer{Name: "etcd, one member"}, Peer{Name: "etcd, one member"}
	if etcdErr == nil {
		cpu.Stats, memory.Stats, etcdErr = e.idle(ctx)
		e.close()
	}
	if etcdErr != nil {
		cpu.Error, memory.Error = etcdErr.Error(), etcdErr.Error()
	}
	lan.Peers = []Peer{cpu}
	if err := s.endLab(); err != nil {
		return nil, err
	}
	if err := s.startLab(ctx); err != nil {
		return nil, err
	}
	fast, err := s.idleCPU(ctx)
	if err != nil {
		return nil, err
	}
	fast.Figure = "idle node, share of a core (fast)"
	sizes, err := s.memory()
	if err != nil {
		return nil, err
	}
	sizes[len(sizes)-1].Peers = []Peer{memory}
	return append([]Result{lan, fast}, sizes...), nil
}

// idleCPU samples the CPU time of the nodes of the lab that runs.
func (s *site) idleCPU(ctx context.Context) (Result, error) {
	r := Result{Unit: percent, Budgets: []Budget{{Limit: idleBudget}}}
	if err := pauseOf(ctx, idleSettle); err != nil {
		return r, err
	}
	names := []string{roleInit, roleNode, roleSpawn, roleMount}
	byRole := func() ([]time.Duration, error) {
		sums := make([]time.Duration, len(names))
		for n := id.Node(1); n <= nodes; n++ {
			roles, err := s.roles(n)
			if err != nil {
				return nil, err
			}
			for i, name := range names {
				t, err := processTime(roles[name])
				if err != nil {
					return nil, err
				}
				sums[i] += t
			}
		}
		return sums, nil
	}
	before, err := byRole()
	if err != nil {
		return r, err
	}
	var list []float64
	var used [nodes]time.Duration
	for w := range idleWindows + 1 {
		for i := range used {
			now, err := s.cpuTime(id.Node(i + 1))
			if err != nil {
				return r, err
			}
			if w > 0 {
				list = append(list, share(now-used[i]))
			}
			used[i] = now
		}
		if w < idleWindows {
			if err := pauseOf(ctx, idleWindow); err != nil {
				return r, err
			}
		}
	}
	after, err := byRole()
	if err != nil {
		return r, err
	}
	r.Stats = statsOf(percent, list)
	r.Note = fmt.Sprintf("a sample per node and %v; by role, over all nodes:", idleWindow)
	for i, name := range names {
		r.Note += fmt.Sprintf(" %s %s%%", name, number(share(after[i]-before[i])/nodes/idleWindows))
	}
	return r, nil
}

// idle samples the CPU time and the memory of the members of etcd.
func (e *etcd) idle(ctx context.Context) (cpu, memory Stats, err error) {
	var times, rss []float64
	var used [nodes]time.Duration
	for w := range idleWindows/2 + 1 {
		for i, m := range e.members {
			now, err := processTime(m.cmd.Process.Pid)
			if err != nil {
				return cpu, memory, err
			}
			if w > 0 {
				times = append(times, share(now-used[i]))
			}
			used[i] = now
		}
		if w < idleWindows/2 {
			if err := pauseOf(ctx, idleWindow); err != nil {
				return cpu, memory, err
			}
		}
	}
	for _, m := range e.members {
		f, err := usage(m.cmd.Process.Pid)
		if err != nil {
			return cpu, memory, err
		}
		rss = append(rss, f.rss)
	}
	return statsOf(percent, times), statsOf(mb, rss), nil
}

func share(used time.Duration) float64 { return 100 * float64(used) / float64(idleWindow) }

// cpuTime is the CPU time that a node of the common lab used.
func (s *site) cpuTime(n id.Node) (time.Duration, error) {
	b, err := os.ReadFile(filepath.Join(s.cgroup(n), "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			us, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, errors.New("cpu.stat has no usage_usec")
}

// processTime is the CPU time of a process that starts no others, by the
// scheduler's clocks of its threads; see proc_pid_schedstat in the kernel's
// Documentation/scheduler/sched-stats.
func processTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, errors.Join(err, errors.New("the kernel has no schedstat"))
	}
	var sum time.Duration
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // the thread ended
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// footprint is the memory of a process, in MB.
type footprint struct{ rss, pss, anonymous float64 }

func (f *footprint) add(o footprint) {
	f.rss, f.pss, f.anonymous = f.rss+o.rss, f.pss+o.pss, f.anonymous+o.anonymous
}

// usage reads proc_pid_smaps_rollup(5).
func usage(pid int) (footprint, error) {
	var f footprint
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		kib, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return f, err
		}
		v := kib * 1024 / 1e6
		switch fields[0] {
		case "Rss:":
			f.rss = v
		case "Pss:":
			f.pss = v
		case "Anonymous:":
			f.anonymous = v
		}
	}
	return f, nil
}

// memory is a figure per role and one for all of them, the last, over the nodes.
func (s *site) memory() ([]Result, error) {
	names := []string{roleInit, roleNode, roleSpawn, roleMount, ""}
	per := make([][]footprint, len(names)) // role, node
	for n := id.Node(1); n <= nodes; n++ {
		roles, err := s.roles(n)
		if err != nil {
			return nil, err
		}
		var sum footprint
		for i, name := range names[:len(names)-1] {
			f, err := usage(roles[name])
			if err != nil {
				return nil, fmt.Errorf("role %s of node %d: %w", name, n, err)
			}
			per[i] = append(per[i], f)
			sum.add(f)
		}
		per[len(names)-1] = append(per[len(names)-1], sum)
	}
	figures := []string{"memory of PID 1 (RSS)", "memory of the role node (RSS)", "memory of the role spawn (RSS)", "memory of the role mount (RSS)", "memory of all roles (sum of RSS)"}
	budgets := [][]Budget{{{Limit: initBudget}}, nil, nil, nil, {{Limit: memoryBudget}}}
	var results []Result
	for i := range names {
		pick := func(get func(footprint) float64) Stats {
			var list []float64
			for _, f := range per[i] {
				list = append(list, get(f))
			}
			return statsOf(mb, list)
		}
		results = append(results, Result{
			Figure: figures[i], Unit: mb, Budgets: budgets[i], Stats: pick(func(f footprint) float64 { return f.rss }),
			Note: fmt.Sprintf("PSS %s MB, anonymous %s MB", number(pick(func(f footprint) float64 { return f.pss }).Median),
				number(pick(func(f footprint) float64 { return f.anonymous }).Median)),
		})
	}
	return results, nil
}

// measureMemory measures the memory again, after what the run did so far.
func measureMemory(_ context.Context, s *site) ([]Result, error) {
	all, err := s.memory()
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Figure += ", after load"
	}
	return all, nil
}

// measureSize measures the program on disk.
func measureSize(_ context.Context, s *site) ([]Result, error) {
	fi, err := os.Stat(s.ssi)
	if err != nil {
		return nil, err
	}
	f, err := elf.Open(s.ssi)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := Result{Figure: "binary", Unit: mb, Budgets: []Budget{{Limit: sizeBudget}}, Stats: statsOf(mb, []float64{float64(fi.Size()) / 1e6})}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil || f.Section(".zdebug_info") != nil {
		r.Note = "it is not stripped: build it by `make build`"
	}
	if fi, err := os.Stat("/usr/bin/etcd"); err == nil {
		r.Peers = []Peer{{Name: "etcd", Stats: statsOf(mb, []float64{float64(fi.Size()) / 1e6})}}
	}
	return []Result{r}, nil
}

// measureLab measures how long three nodes take from nothing to UP.
func measureLab(ctx context.Context, s *site) ([]Result, error) {
	var list []time.Duration
	for range labStarts {
		began := time.Now()
		l, err := lab.Start(ctx, s.options("start", profileFast))
		if err != nil {
			return nil, err
		}
		list = append(list, time.Since(began))
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	return []Result{{Figure: "lab of 3 nodes ready", Unit: seconds, Budgets: []Budget{{Limit: readyBudget}}, Stats: statsOf(seconds, durations(seconds, list))}}, nil
}
