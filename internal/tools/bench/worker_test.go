package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// obeying is a worker in this process.
func obeying(t *testing.T) (w *worker, ended chan error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w = &worker{name: "a worker", in: inW, out: outR, dec: json.NewDecoder(outR), stop: stop, ended: make(chan struct{})}
	ended = make(chan error, 1)
	go func() {
		err := obey(ctx, inR, outW)
		_, _ = inR.Close(), outW.Close()
		ended <- err
		close(w.ended)
	}()
	t.Cleanup(w.close)
	return w, ended
}

func awaitEnd(t *testing.T, ended chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it did not end")
	}
}

// A worker does one job after the other, also after one that failed, and what it
// holds ends with it.
func TestWorker(t *testing.T) {
	w, ended := obeying(t)
	l := load{Parallel: 1, For: 10 * time.Second, Max: 3}
	if _, err := w.do(t.Context(), jobProcs, order{Load: l, Argv: []string{"false"}}); err == nil {
		t.Error("a program that fails is no error")
	}
	if _, err := w.do(t.Context(), "nonsense", order{}); err == nil {
		t.Error("a job that there is not is no error")
	}
	if got, err := w.do(t.Context(), jobProcs, order{Load: l, Argv: []string{"test", "-d", "worker"}, Dir: t.TempDir()}); err == nil {
		t.Errorf("it did not run in the directory: %+v", got)
	}
	if got, err := w.do(t.Context(), jobPrint, order{Argv: []string{"echo", `{"durations_ns":[1,2],"count":7}`}}); err != nil || got.Count != 7 || len(got.Durations) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	held, err := w.do(t.Context(), jobHold, order{Argv: []string{"sleep", "600"}, Count: 3})
	if err != nil || len(held.PIDs) != 3 {
		t.Fatalf("%+v, %v", held, err)
	}
	if got, err := w.do(t.Context(), jobCount, order{}); err != nil || got.Count < 4 {
		t.Errorf("%d processes, %v", got.Count, err)
	}
	_ = w.in.Close()
	awaitEnd(t, ended)
	for _, pid := range held.PIDs {
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

// A worker that is hung up ends although nobody tells it anything.
func TestWorkerHungUp(t *testing.T) {
	w, ended := obeying(t)
	w.stop()
	awaitEnd(t, ended)
}

// Who comes first in a round changes, and each does as much.
func TestCompare(t *testing.T) {
	a, _ := obeying(t)
	b, _ := obeying(t)
	p := &pair{a, b}
	ours, native, err := p.compare(t.Context(), 3, jobProcs, order{Load: load{Parallel: 1, For: 10 * time.Second, Max: 2}, Argv: []string{"true"}})
	if err != nil || len(ours) != 6 || len(native) != 6 {
		t.Errorf("%d and %d samples, %v", len(ours), len(native), err)
	}
}
