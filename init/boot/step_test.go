package boot

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bench is a runner whose time is that of synctest.
type bench struct {
	*runner
	out     bytes.Buffer
	saved   []Report
	rescued []string
}

func newBench() *bench {
	b := &bench{}
	began := time.Now()
	b.runner = &runner{
		out: &b.out, now: func() time.Duration { return time.Since(began) },
		save:      func(r Report) { r.Phases = slices.Clone(r.Phases); b.saved = append(b.saved, r) },
		emergency: func(_ context.Context, step string, why error) { b.rescued = append(b.rescued, step+": "+why.Error()) },
	}
	return b
}

func (b *bench) states() string {
	var list []string
	for _, p := range b.report.Phases {
		list = append(list, p.Name+"="+string(p.State))
	}
	return strings.Join(list, " ")
}

func result(text string, err error) func(context.Context, func(string)) (string, error) {
	return func(context.Context, func(string)) (string, error) { return text, err }
}

func TestSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		ok := b.run(t.Context(), []step{
			{name: "a", what: "the first", do: result("", nil)},
			{name: "b", do: result("", errors.New("two\nlines \x1b[31m"))},
			{name: "c", needs: []string{"a", "b"}, do: result("", nil)},
			{name: "d", skip: func() string { return "no need" }, do: result("", errors.New("no"))},
			{name: "e", do: func(context.Context, func(string)) (string, error) { panic("a test") }},
			{name: "f", do: func(_ context.Context, say func(string)) (string, error) {
				say("the cable")
				say("the cable")
				<-time.After(25 * time.Second)
				return "at last", nil
			}},
		})
		if !ok || b.states() != "a=done b=failed c=failed d=skipped e=failed f=done" || b.report.State != Done {
			t.Errorf("%v %s %s", ok, b.states(), b.report.State)
		}
		for _, want := range []string{
			"[    0.00] a: the first\r\n", "b: FAILED: two; lines ?[31m\r\n", "c: FAILED: not tried: b failed\r\n", "e: FAILED: panic: a test",
			"[    0.00] f: the cable …\r\n", "[   10.00] f: the cable … (10.00 s)\r\n", "[   25.00] f: at last (25.00 s)\r\n",
		} {
			if strings.Count(b.out.String(), want) != 1 {
				t.Errorf("%q is not there once:\n%s", want, &b.out)
			}
		}
		if p := b.report.Phases[5]; p.Start != 0 || p.Took != 25*time.Second {
			t.Errorf("%+v", p)
		}
		if !slices.ContainsFunc(b.saved, func(r Report) bool {
			return len(r.Phases) == 6 && r.Phases[5].State == Waiting && r.Phases[5].Why == "the cable"
		}) {
			t.Error("what the step waits for was not saved")
		}
	})
}

func TestStepLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		release := make(chan struct{})
		var late sync.WaitGroup
		late.Add(1)
		b.run(t.Context(), []step{
			{name: "obeys", limit: time.Minute, do: func(ctx context.Context, _ func(string)) (string, error) {
				<-ctx.Done()
				return "", errors.New("no disk")
			}},
			{name: "hangs", limit: time.Minute, do: func(_ context.Context, say func(string)) (string, error) {
				defer late.Done()
				<-release
				say("too late")
				return "", nil
			}},
			{name: "next", do: result("fine", nil)},
		})
		close(release)
		late.Wait()
		if b.states() != "obeys=failed hangs=failed next=done" {
			t.Error(b.states())
		}
		for i, want := range []string{"not done within 1m0s: no disk", "not done within 1m0s, and it does not end: the kernel holds it", "fine"} {
			if b.report.Phases[i].Why != want {
				t.Errorf("%q, want %q", b.report.Phases[i].Why, want)
			}
		}
	})
}

// A fatal step leads to the shell, and is tried again after it; one that ends the
// start is the last.
func TestFatalStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		b.quiet = true
		n := 0
		ok := b.run(t.Context(), []step{
			{name: "root", fatal: true, do: func(context.Context, func(string)) (string, error) {
				if n++; n < 4 {
					return "", errors.New("bad disk")
				}
				return "", nil
			}},
			{name: "switch", fatal: true, do: result("to the new root", errStop)},
			{name: "never", do: result("", nil)},
		})
		if ok || b.states() != "root=done switch=done" || !slices.Equal(b.rescued, []string{"root: bad disk", "root: bad disk", "root: bad disk"}) {
			t.Errorf("%v %s %v", ok, b.states(), b.rescued)
		}
		if !slices.ContainsFunc(b.saved, func(r Report) bool { return r.State == Emergency && r.Why == "root: bad disk" }) {
			t.Error("the report does not say that a shell runs, and why")
		}
		if strings.Contains(b.out.String(), "switch") || b.now() != 1*time.Second+2*time.Second+4*time.Second {
			t.Errorf("after %s: %s", b.now(), &b.out)
		}
	})
}

func TestStartIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := newBench()
	if b.run(ctx, []step{
		{name: "a", fatal: true, do: func(context.Context, func(string)) (string, error) { cancel(); return "", errors.New("no") }},
		{name: "b", do: result("", nil)},
	}) || b.states() != "a=failed" {
		t.Error(b.states())
	}
}
