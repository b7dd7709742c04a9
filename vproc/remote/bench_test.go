package remote

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"ssi/internal/id"
	"ssi/vproc/call"
)

// BenchmarkHome is what a call costs at its home, without the way there.
func BenchmarkHome(b *testing.B) {
	needInside(b)
	dir, err := os.MkdirTemp("/dev/shm", "remote")
	must(b, err)
	defer func() { _ = os.RemoveAll(dir) }()
	w := &world{t: b, dir: dir, peers: &peers{}}
	must(b, window(1))
	w.open()
	defer func() { w.m.Close() }()
	pid := w.here(Start{Args: sleeps(), UID: alice})
	for _, c := range []struct {
		name string
		uid  uint32
		nr   call.Nr
		args []int
	}{
		{"getpgid", alice, call.Getpgid, []int{pid}},
		{"kill of a user", alice, call.Kill, []int{pid, 0}},
		{"kill of root", 0, call.Kill, []int{pid, 0}},
		{"signal of a user", alice, call.Kill, []int{pid, 18}},
		{"signal of root", 0, call.Kill, []int{pid, 18}},
		{"kill of a group", alice, call.Kill, []int{-pid, 0}},
	} {
		b.Run(c.name, func(b *testing.B) {
			who := caller(c.uid)
			who.Node, who.PID = 3, 3<<id.PIDShift+500
			var took []time.Duration
			for b.Loop() {
				r := w.request(who, c.nr, c.args...)
				r.Origin.Node = 3
				start := time.Now()
				out, err := w.m.ServeCall(b.Context(), 3, ask{r: r}.encode())
				took = append(took, time.Since(start))
				if err != nil || len(out) == 0 {
					b.Fatal(err)
				}
			}
			slices.Sort(took)
			for _, p := range []int{50, 99} {
				b.ReportMetric(float64(took[len(took)*p/100].Nanoseconds())/1000, fmt.Sprintf("p%d-µs", p))
			}
		})
	}
}
