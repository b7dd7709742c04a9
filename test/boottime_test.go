package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/vmtest"
)

// TestBootTimes measures, by `make bench-vm`, how long machines take from power-on
// until the cluster sees them UP: one alone, several times, as many at once as
// this computer lets run, and the first one from the start of its kernel. The times
// are those of the cluster's log, by the clock of the first node.
func TestBootTimes(t *testing.T) {
	if os.Getenv("SSI_BENCH") == "" {
		t.Skip("skipped: a measurement; SSI_BENCH=1 runs it")
	}
	const alone, together = 3, 6
	m := newMachines(t, 1+together, 1)
	m.run(m.first, "ssi cluster init --name vm --node 1")
	m.sees(m.first, 1, "UP")
	m.first.Say("booting machines")
	nodes := make([]*vmtest.Machine, together)
	for i := range nodes {
		nodes[i] = m.node(i + 2)
		m.run(m.first, fmt.Sprintf("ssi addnode 52:54:00:55:00:%02x --node %d --class vm", i+2, i+2))
	}
	m.served("vm")

	var times []time.Duration
	for range alone {
		began := m.clock()
		nodes[0].Start()
		m.sees(m.first, 2, "UP")
		used := cpuTime(t, nodes[0].PID())
		times = append(times, m.upSince(2).Sub(began))
		t.Logf("alone: %v, %v of processor for the emulation", times[len(times)-1].Round(10*time.Millisecond), used)
		nodes[0].Cut()
		m.sees(m.first, 2, "DOWN")
	}
	slices.Sort(times)
	t.Logf("power-on to UP, alone: median %v", times[len(times)/2].Round(10*time.Millisecond))

	// iPXE polls: six of them would take the processors from the machine that they wait
	// for, which has one of its own where machines are real.
	prefer(t, m.first.PID())
	began, first, used := m.clock(), cpuTime(t, m.first.PID()), time.Duration(0)
	for _, n := range nodes {
		n.Start()
	}
	for i := range nodes {
		m.sees(m.first, i+2, "UP")
	}
	var last time.Time
	for i, n := range nodes {
		used += cpuTime(t, n.PID())
		if up := m.upSince(i + 2); up.After(last) {
			last = up
		}
	}
	t.Logf("power-on to UP, %d at once: %v, %v of processor for their emulation, %v for the first node's",
		together, last.Sub(began).Round(10*time.Millisecond), used, cpuTime(t, m.first.PID())-first)
	for _, n := range nodes {
		n.Cut()
	}

	m.first.Type("ssi poweroff")
	m.first.Off()
	m.first.Start()
	m.first.Say(`first login: `)
	m.first.Type("root")
	m.first.Say(`# $`)
	m.sees(m.first, 1, "UP")
	up := m.number("cut -d' ' -f1 /proc/uptime")
	kernel := m.clock().Add(-time.Duration(up * float64(time.Second)))
	t.Logf("first node, start of the kernel to UP: %v", m.upSince(1).Sub(kernel).Round(10*time.Millisecond))
	for _, n := range m.status().Nodes {
		if n.Node == 1 && n.Machine != nil && n.Machine.Boot != nil {
			for _, p := range n.Machine.Boot.Phases {
				t.Logf("  %-24s from %5.2f s, %5.2f s", p.Name, p.Start.Seconds(), p.Took.Seconds())
			}
		}
	}
}

// served waits until machines of a hardware class get their own initramfs. The
// first node makes it, on its emulated processor.
func (m *machines) served(class string) {
	m.t.Helper()
	m.until(m.first, "dmesg | grep class="+class, "own initramfs")
}

// clock is what the first machine's clock says.
func (m *machines) clock() time.Time {
	m.t.Helper()
	return time.Unix(0, int64(m.number("date +%s%3N")*1e6)) // microseconds and below are lost in a float64
}

// number is what a command on the first machine prints, among which may be messages
// of its kernel.
func (m *machines) number(command string) float64 {
	m.t.Helper()
	out := m.run(m.first, command)
	for line := range strings.Lines(out) {
		if f, err := strconv.ParseFloat(strings.TrimSpace(line), 64); err == nil {
			return f
		}
	}
	m.t.Fatalf("%s: no number in %q", command, out)
	return 0
}

// upSince is when a node came up, by the first machine's clock.
func (m *machines) upSince(node int) time.Time {
	m.t.Helper()
	status := m.status()
	for _, n := range status.Nodes {
		if int(n.Node) == node && n.State == api.Up {
			return n.Since
		}
	}
	m.t.Fatalf("node %d is not UP: %+v", node, status)
	return time.Time{}
}

// status is what the first machine says of the cluster.
func (m *machines) status() api.ClusterStatus {
	m.t.Helper()
	var status api.ClusterStatus
	out := m.run(m.first, "ssi cluster --json | tr -d '\\n'; echo") // one line, which no message divides
	if i := strings.Index(out, "{"); i > 0 {
		out = out[i:]
	}
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&status); err != nil {
		m.t.Fatalf("ssi cluster --json: %v: %s", err, out)
	}
	return status
}

// prefer gives the threads of a process more processor time than others.
func prefer(t *testing.T, pid int) {
	t.Helper()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, th := range threads {
		tid, err := strconv.Atoi(th.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, tid, -10)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			t.Fatal(err)
		}
	}
}

// cpuTime is the processor time of a process so far: proc_pid_stat(5), in the
// hundredths of a second of USER_HZ.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var sum time.Duration
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum
}
