package lab

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// reach reports whether a connection from one node to another makes a round
// trip, with the neighbour tables empty, so that broadcasts must pass as well.
func reach(t *testing.T, l *Lab, from, to id.Node, timeout string) bool {
	t.Helper()
	_, code, err := l.Console(t.Context(), from, "sh", "-c", "ip neigh flush all; exec /sbin/ssi probe "+to.String()+" "+timeout)
	if err != nil {
		t.Fatal(err)
	}
	return code == 0
}

// flows reports whether a broadcast of one node reaches the other.
func flows(t *testing.T, l *Lab, from, to id.Node) bool {
	t.Helper()
	heard := make(chan int, 1)
	go func() {
		_, code, _ := l.Console(t.Context(), to, "/sbin/ssi", "hear", Addr(from), "300ms")
		heard <- code
	}()
	for {
		sh(t, l, from, "/sbin/ssi shout")
		select {
		case code := <-heard:
			return code == 0
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFaultsOfTheNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("short: it waits for many connections that must not come")
	}
	l := start(t, Options{Nodes: 3, Seed: 1})
	ctx := t.Context()
	all := func(what string, down ...[2]id.Node) {
		t.Helper()
		for _, p := range [][2]id.Node{{1, 2}, {1, 3}, {2, 3}} {
			cut := false
			for _, d := range down {
				cut = cut || d == p
			}
			timeout := "10s"
			if cut {
				timeout = "300ms"
			}
			if reach(t, l, p[0], p[1], timeout) == cut {
				t.Errorf("%s: connection %d to %d works: %v", what, p[0], p[1], !cut)
			}
		}
	}
	all("at first")
	check(t, l.Cut(ctx, 1, 2, false))
	all("cut 1 2", [2]id.Node{1, 2})
	for _, d := range [][2]id.Node{{1, 2}, {2, 1}} {
		if flows(t, l, d[0], d[1]) {
			t.Errorf("a broadcast of %d reaches %d over a cut", d[0], d[1])
		}
	}
	if !flows(t, l, 1, 3) {
		t.Error("a broadcast of 1 does not reach 3")
	}
	check(t, l.Heal(ctx, 1, 2))
	all("healed")

	check(t, l.Cut(ctx, 2, 3, true))
	all("cut 2 3 --one-way", [2]id.Node{2, 3})
	if flows(t, l, 2, 3) || !flows(t, l, 3, 2) {
		t.Error("a one-way cut must stop what 2 sends and only that")
	}
	st, err := l.Status(ctx)
	check(t, err)
	if len(st.Faults) != 1 || st.Faults[0] != (Fault{From: 2, To: 3, Cut: true}) || st.Nodes[2].Wire == nil || st.Nodes[2].Wire.Dropped == 0 || st.Nodes[0].Wire != nil {
		t.Errorf("status: %+v", st)
	}
	check(t, l.Heal(ctx, 0, 0))
	all("all healed")

	check(t, l.Delay(ctx, 1, 3, 50*time.Millisecond))
	if ms := must(strconv.Atoi(sh(t, l, 1, "/sbin/ssi probe 3 10s"))); ms < 100 {
		t.Errorf("a round trip over a link delayed by 50 ms each way takes %d ms", ms)
	}
	sh(t, l, 1, "/sbin/ssi probe 2 10s")
	check(t, l.Delay(ctx, 2, 0, 30*time.Millisecond))
	if ms := must(strconv.Atoi(sh(t, l, 3, "/sbin/ssi probe 2 10s"))); ms < 60 {
		t.Errorf("a round trip to a node delayed by 30 ms takes %d ms", ms)
	}
	check(t, l.Heal(ctx, 0, 0))

	check(t, l.Loss(ctx, 2, 0, 1))
	all("100% loss at 2", [2]id.Node{1, 2}, [2]id.Node{2, 3})
	check(t, l.Loss(ctx, 2, 0, 0.05))
	all("5% loss at 2")
	// A fault stays over a restart of the node.
	check(t, l.Heal(ctx, 0, 0))
	check(t, l.Cut(ctx, 1, 2, false))
	check(t, l.Crash(ctx, 2))
	check(t, l.StartNode(ctx, 2))
	wctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	eventually(t, "node 2 serves again", func() bool { return wctx.Err() == nil && reach(t, l, 3, 2, "300ms") })
	all("cut 1 2 after a restart", [2]id.Node{1, 2})

	for _, err := range []error{l.Cut(ctx, 1, 1, false), l.Cut(ctx, 1, 0, false), l.Delay(ctx, 1, 2, time.Hour), l.Loss(ctx, 1, 2, 1.5), l.Delay(ctx, 1, 2, -1)} {
		if !errno.Is(err, errno.Invalid) {
			t.Errorf("an unfit fault: %v", err)
		}
	}
	if err := l.Cut(ctx, 1, 9, false); !errno.Is(err, errno.NotFound) || !strings.Contains(err.Error(), "no node 9") {
		t.Errorf("cut of a node that is not there: %v", err)
	}
}

// A stream between two nodes goes on, whole, while faults come and go around it.
func TestFaultsKeepStreams(t *testing.T) {
	l := start(t, Options{Nodes: 3})
	done := make(chan string, 1)
	go func() {
		out, code, err := l.Console(t.Context(), 1, "/sbin/ssi", "stream", "2", "300")
		if err != nil || code != 0 {
			t.Errorf("stream: status %d, %v: %s", code, err, out)
		}
		done <- string(out)
	}()
	for i := 0; ; i++ {
		select {
		case out := <-done:
			t.Logf("%d changes; %s", i, strings.TrimSpace(out))
			if i == 0 {
				t.Error("the stream was over before a fault came")
			}
			return
		default:
		}
		check(t, l.Delay(t.Context(), 2, 0, time.Duration(i%3)*time.Millisecond))
		check(t, l.Cut(t.Context(), 1, 3, i%2 == 0))
		check(t, l.Heal(t.Context(), 1, 3))
	}
}
