package procfs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// BenchmarkView runs the benchmarks that follow with 2,000 processes on the other machine.
func BenchmarkView(b *testing.B) {
	if os.Getenv(modeEnv) == "view" {
		b.Skip("we are in it")
	}
	runMachine(b, []string{countEnv + "=2000"}, "-test.run=^$", "-test.bench=^BenchmarkView", "-test.benchtime=10x", "-test.timeout=150s")
}

// ps aux in the view, and of the same processes there, in turn; the medians.
func BenchmarkViewPS(b *testing.B) {
	inView(b)
	var here, there []float64
	within(b, 20*time.Second, func() error { // until all is known here
		out, err := exec.Command("ps", "aux").CombinedOutput()
		if n := bytes.Count(out, []byte("sleep 100003")); err != nil || n < 2000 {
			return fmt.Errorf("%d processes, %w", n, err)
		}
		return nil
	})
	for b.Loop() {
		begun := time.Now()
		if out, err := exec.Command("ps", "aux").CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		here = append(here, float64(time.Since(begun))/1e6)
		a := ask(b, "remote", "ps", "aux").Remote
		if a.Err != "" {
			b.Fatal(a.Err)
		}
		there = append(there, float64(a.Took)/1e6)
	}
	b.Logf("ms in the view %.0f, native %.0f", here, there)
	slices.Sort(here)
	slices.Sort(there)
	b.ReportMetric(here[len(here)/2], "ms-view")
	b.ReportMetric(there[len(there)/2], "ms-native")
	b.ReportMetric(here[len(here)/2]/there[len(there)/2], "view/native")
}

// ps aux for the first time, when nothing is cached: each time after the role
// mount was killed.
func BenchmarkViewCold(b *testing.B) {
	inView(b)
	for b.Loop() {
		ask(b, "kill")
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			b.Fatal(err)
		}
		if out, err := exec.Command("ps", "aux").CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
