package test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"ssi/internal/vmtest"
)

// TestBootTimes measures, by `make bench-vm`, how long machines take from power-on
// until the cluster sees them UP: one alone, several times, and as many at once as
// this computer lets run.
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
		m.run(m.first, fmt.Sprintf("ssi addnode 52:54:00:55:00:%02x --node %d", i+2, i+2))
	}
	var times []time.Duration
	for range alone {
		began := time.Now()
		nodes[0].Start()
		m.sees(m.first, 2, "UP")
		times = append(times, time.Since(began))
		nodes[0].Cut()
		m.sees(m.first, 2, "DOWN")
	}
	slices.Sort(times)
	t.Logf("power-on to UP, alone: median %v of %v", times[len(times)/2].Round(time.Millisecond), times)
	began := time.Now()
	for _, n := range nodes {
		n.Start()
	}
	for i := range nodes {
		m.sees(m.first, i+2, "UP")
	}
	t.Logf("power-on to UP, %d at once: %v", together, time.Since(began).Round(time.Millisecond))
}
