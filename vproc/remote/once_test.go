package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/sys"
	"ssi/vproc/call"
)

// queue is a call that sends a value, which the target tells.
func (w *world) queue(pid, value int) *call.Request {
	r := w.request(caller(0), call.RtSigqueueinfo, pid, 40, 1)
	r.In = make([]byte, call.SiginfoSize)
	binary.NativeEndian.PutUint32(r.In, 40)
	const siQueue = -1
	binary.NativeEndian.PutUint32(r.In[8:], uint32(0xffffffff&siQueue))
	binary.NativeEndian.PutUint32(r.In[24:], uint32(value))
	return r
}

// values counts what was taken of each value sent by queue.
func values(t testing.TB, out string) map[int]int {
	t.Helper()
	got := map[int]int{}
	for _, l := range lines(t, out) {
		if f := strings.Fields(l); len(f) == 5 && f[0] == "40" {
			var v int
			_, err := fmt.Sscan(f[4], &v)
			must(t, err)
			got[v]++
		}
	}
	return got
}

// A call that is handled again is done once: by the same daemon, by the next one,
// and if that was killed between the call and its answer.
func TestOnce(t *testing.T) {
	w := newWorld(t)
	pid, out := w.taking(Start{})
	r := w.queue(pid, 1)
	for range 3 {
		if got := said(w.handle(r)); got != "0" {
			t.Errorf("the same call: %s", got)
		}
	}
	must(t, w.peers.do(t.Context(), "Die", int64(1), new(bool)))
	for range 2 {
		if got := said(w.handle(r)); got != "0" {
			t.Errorf("the same call, to another daemon: %s", got)
		}
	}
	must(t, w.peers.do(t.Context(), "Die", int64(1), new(bool)))
	if got := said(w.handle(w.queue(pid, 2))); got != "0" {
		t.Errorf("a call whose daemon is killed after it: %s", got)
	}
	bad := w.request(caller(bob), call.Kill, pid, 9)
	for range 2 {
		if got := said(w.handle(bad)); got != "EPERM" {
			t.Errorf("a refusal: %s", got)
		}
	}
	// What a call wrote comes again too.
	r = w.request(caller(0), call.Prlimit64, pid, unix.RLIMIT_NOFILE, 1, 1)
	r.In, r.OutLen = make([]byte, 16), 16
	first := w.handle(r)
	again := w.handle(r)
	if said(first) != "0" || len(first.Reply.Out) != 16 || string(first.Reply.Out) != string(again.Reply.Out) {
		t.Errorf("prlimit: %x, then %x", first.Reply.Out, again.Reply.Out)
	}
	if got := said(w.handle(w.queue(pid, 3))); got != "0" {
		t.Errorf("the last: %s", got)
	}
	eventually(t, "the values", func() bool { return len(values(t, out)) == 3 })
	for v, n := range values(t, out) {
		if n != 1 {
			t.Errorf("value %d came %d times", v, n)
		}
	}
}

// The daemon is killed at any moment, and every call is done once or fails.
func TestOnceInAStorm(t *testing.T) {
	w := newWorld(t)
	pid, out := w.taking(Start{})
	const senders, each = 8, 400
	ctx, cancel := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	kills := 0
	killer.Go(func() {
		for ctx.Err() == nil {
			if w.peers.do(ctx, "Kill", true, new(bool)) != nil { // it cannot answer any more
				kills++
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(5+rand.IntN(40)) * time.Millisecond):
			}
		}
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[int]string{}
	for i := range senders {
		wg.Go(func() {
			for j := range each {
				v := 1 + i*each + j
				got := said(w.handle(w.queue(pid, v)))
				mu.Lock()
				outcomes[v] = got
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	cancel()
	killer.Wait()
	if got := said(w.handle(w.queue(pid, 999999))); got != "0" {
		t.Fatalf("the last: %s", got)
	}
	eventually(t, "the last value", func() bool { return values(t, out)[999999] == 1 })
	got := values(t, out)
	failed := 0
	for v, o := range outcomes {
		switch {
		case o == "0" && got[v] != 1:
			t.Errorf("value %d came %d times", v, got[v])
		case o != "0":
			failed++
			if o != "EIO" || got[v] > 1 {
				t.Errorf("value %d: %s, and it came %d times", v, o, got[v])
			}
		}
	}
	t.Logf("%d calls, a daemon killed up to %d times, %d calls of which nobody knows", len(outcomes), kills, failed)
	if kills == 0 {
		t.Error("no daemon was killed")
	}
}

func testAnswers(t *testing.T, dir string) *answers {
	t.Helper()
	a, err := openAnswers(dir, slog.New(slog.DiscardHandler))
	must(t, err)
	return a
}

func numbered(seq uint64) *call.Request {
	return &call.Request{Nr: call.Kill, OutLen: 16, Origin: call.Origin{Node: 1, Incarnation: 7, Seq: seq}}
}

// What is in the file decides about a call that comes again.
func TestAnswers(t *testing.T) {
	dir := t.TempDir()
	a := testAnswers(t, dir)
	runs := 0
	run := func(ret int64, e unix.Errno, err error) func(*slot) (call.Reply, error) {
		return func(*slot) (call.Reply, error) {
			runs++
			return call.Reply{Ret: ret, Errno: e, Out: []byte("0123456789abcdef")}, err
		}
	}
	do := func(seq uint64, f func(*slot) (call.Reply, error)) (call.Reply, error) {
		return a.do(t.Context(), numbered(seq), f)
	}
	check := func(seq uint64, f func(*slot) (call.Reply, error), ret int64, e unix.Errno, err error, want int) {
		t.Helper()
		runs = 0
		r, got := do(seq, f)
		if r.Ret != ret || r.Errno != e || !errors.Is(got, err) || runs != want {
			t.Errorf("%d: %+v, %v, %d runs; want %d %v %v %d", seq, r, got, runs, ret, e, err, want)
		}
	}
	reopen := func() {
		t.Helper()
		a.close()
		a = testAnswers(t, dir)
	}
	check(1, run(5, 0, nil), 5, 0, nil, 1)
	check(1, run(6, 0, nil), 5, 0, nil, 0)
	check(2, run(0, unix.EPERM, nil), 0, unix.EPERM, nil, 1)
	check(3, run(0, 0, unix.EAGAIN), 0, 0, unix.EAGAIN, 1) // nothing was done
	check(3, run(1, 0, nil), 1, 0, nil, 1)
	check(4, run(0, 0, sys.ErrDeputyLost), 0, 0, errUnknown, 1)
	check(4, run(0, 0, nil), 0, unix.EIO, nil, 0)
	check(0, run(0, 0, nil), 0, 0, unix.EINVAL, 0)
	// Daemons that were killed: before the deputy began, after it, and after the call.
	for seq := uint64(5); seq <= 7; seq++ {
		s, done, err := a.begin(t.Context(), 1, origin{7, seq})
		if err != nil || done == nil {
			t.Fatal(err)
		}
		if seq >= 6 {
			sys.StoreKept(s.begun(), 1)
		}
		if seq == 7 {
			copy(s.out(), "result of a call")
			sys.StoreKept(s.ret(), 9)
		}
	}
	reopen()
	check(1, run(6, 0, nil), 5, 0, nil, 0)
	check(2, run(6, 0, nil), 0, unix.EPERM, nil, 0)
	check(5, run(3, 0, nil), 3, 0, nil, 1)
	check(6, run(3, 0, nil), 0, 0, errUnknown, 0)
	check(7, run(3, 0, nil), 9, 0, nil, 0)
	if r, _ := do(7, run(3, 0, nil)); string(r.Out) != "result of a call" {
		t.Errorf("what the call wrote: %q", r.Out)
	}
	// The oldest are forgotten, and not done again.
	for seq := uint64(8); seq < 8+keptAnswers; seq++ {
		check(seq, run(int64(seq), 0, nil), int64(seq), 0, nil, 1)
	}
	for range 2 {
		check(1, run(1, 0, nil), 0, 0, errUnknown, 0)
		check(7, run(1, 0, nil), 0, 0, errUnknown, 0)
		check(8, run(1, 0, nil), 8, 0, nil, 0)
		check(8+keptAnswers-1, run(1, 0, nil), 8+keptAnswers-1, 0, nil, 0)
		reopen()
	}
	// Another life of that node has numbers of its own.
	r := numbered(1)
	r.Origin.Incarnation = 8
	if reply, err := a.do(t.Context(), r, run(77, 0, nil)); err != nil || reply.Ret != 77 {
		t.Errorf("another incarnation: %+v, %v", reply, err)
	}
	a.close()
	// A file of another boot is none.
	path := dir + "/answers-1"
	b, err := os.ReadFile(path)
	must(t, err)
	b[offBootID] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
	a = testAnswers(t, dir)
	check(9, run(1, 0, nil), 1, 0, nil, 1)
	a.close()
}

// While an earlier daemon or its deputies may live, what they began is not repeated.
func TestAnswersNotSure(t *testing.T) {
	dir := t.TempDir()
	old := testAnswers(t, dir)
	if _, _, err := old.begin(t.Context(), 1, origin{7, 1}); err != nil {
		t.Fatal(err)
	}
	a := testAnswers(t, dir) // waits for lockTime
	if _, err := a.do(t.Context(), numbered(1), nil); a.sure || !errors.Is(err, errUnknown) {
		t.Errorf("sure %v, %v", a.sure, err)
	}
	a.close()
	old.close()
}

// The same call at the same time is done once, and who waits gives up with its context.
func TestAnswersAtOnce(t *testing.T) {
	a := testAnswers(t, t.TempDir())
	defer a.close()
	started, end := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := a.do(t.Context(), numbered(1), func(*slot) (call.Reply, error) {
			close(started)
			<-end
			return call.Reply{Ret: 1}, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.do(ctx, numbered(1), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	wg.Go(func() {
		if r, err := a.do(t.Context(), numbered(1), nil); err != nil || r.Ret != 1 {
			t.Errorf("the other one: %+v, %v", r, err)
		}
	})
	close(end)
	wg.Wait()
}

// A call ends when its node does, when it is answered after all, and with its context.
func TestNodeFails(t *testing.T) {
	w := newWorld(t)
	pid := w.there(Start{Args: sleeps()})
	var mu sync.Mutex
	failures := 0
	fail := func(n int, err error, then func()) {
		mu.Lock()
		defer mu.Unlock()
		failures = n
		w.peers.setHook(func(string) error {
			mu.Lock()
			defer mu.Unlock()
			if failures--; failures < 0 {
				return nil
			}
			if then != nil {
				then()
			}
			return err
		})
	}
	unavailable := errno.New(errno.Unavailable, "call", 2, "the connection is lost")
	fail(5, unavailable, nil)
	if got := said(w.call(caller(0), call.Kill, pid, 0)); got != "0" {
		t.Errorf("after five failures: %s", got)
	}
	fail(1, errno.New(errno.NotFound, "call", 2, "no such method"), nil)
	if got := said(w.call(caller(0), call.Kill, pid, 0)); got != "ENOSYS" {
		t.Errorf("a node of another version: %s", got)
	}
	fail(3, errno.New(errno.Fenced, "call", 2, "starting"), nil)
	if got := said(w.call(caller(0), call.Kill, pid, 0)); got != "0" {
		t.Errorf("a daemon that starts: %s", got)
	}
	fail(1<<30, unavailable, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got := said(w.m.Handle(ctx, w.request(caller(0), call.Kill, pid, 0))); got != "ETIMEDOUT" {
		t.Errorf("no answer in time: %s", got)
	}
	fail(1<<30, unavailable, func() { w.peers.down.Store(true) })
	if got := said(w.call(caller(0), call.Kill, pid, 0)); got != "ESRCH" {
		t.Errorf("the node goes down meanwhile: %s", got)
	}
	w.peers.down.Store(false)
	fail(1<<30, unavailable, func() { w.peers.down.Store(true) })
	if got := said(w.call(caller(0), call.Kill, -pid, 0)); got != "continue" {
		t.Errorf("a group, the node goes down meanwhile: %s", got)
	}
}

// Messages that no gate sends are refused, and nothing is done.
func TestHostileNode(t *testing.T) {
	w := newWorld(t)
	pid := w.here(Start{Args: sleeps()})
	good := func() *call.Request {
		return &call.Request{
			Nr: call.Kill, Args: [6]uint64{uint64(pid), 9}, Origin: call.Origin{Node: 3, Incarnation: 1, Seq: 1},
			Caller: call.Caller{Node: 3, PID: 3<<id.PIDShift + 1, TID: 3<<id.PIDShift + 1, Caps: 1<<41 - 1},
		}
	}
	for name, change := range map[string]func(*call.Request) (from id.Node){
		"from nobody":            func(*call.Request) id.Node { return 0 },
		"from another":           func(*call.Request) id.Node { return 2 },
		"the origin of another":  func(r *call.Request) id.Node { r.Origin.Node = 2; return 3 },
		"the caller of another":  func(r *call.Request) id.Node { r.Caller.Node = 1; return 3 },
		"no caller":              func(r *call.Request) id.Node { r.Caller.PID = 0; return 3 },
		"ptrace":                 func(r *call.Request) id.Node { r.Nr = call.Ptrace; r.Args = [6]uint64{16, uint64(pid)}; return 3 },
		"setpgid":                func(r *call.Request) id.Node { r.Nr = call.Setpgid; return 3 },
		"process_vm_readv":       func(r *call.Request) id.Node { r.Nr = call.ProcessVMReadv; return 3 },
		"the cluster":            func(r *call.Request) id.Node { r.Nr = call.ClusternodeNum; return 3 },
		"a file that is not one": func(r *call.Request) id.Node { r.Nr = call.PidfdSendSignal; return 3 },
	} {
		r := good()
		from := change(r)
		if b, err := w.m.ServeCall(t.Context(), from, ask{r: r}.encode()); !errno.Is(err, errno.Invalid) {
			t.Errorf("%s: %x, %v", name, b, err)
		}
	}
	for name, c := range map[string]struct {
		change func(*call.Request)
		want   unix.Errno
	}{
		"PID 1":               {func(r *call.Request) { r.Args[0] = 1 }, unix.ESRCH},
		"of window 0":         {func(r *call.Request) { r.Args[0] = 400 }, unix.ESRCH},
		"of another node":     {func(r *call.Request) { r.Args[0] = 3<<id.PIDShift + 5 }, unix.ESRCH},
		"a group of window 0": {func(r *call.Request) { r.Args[0] = 1<<64 - 400 }, unix.ESRCH},
		"the daemon's group":  {func(r *call.Request) { r.Args[0] = 0; r.Caller.PGID = int32(unix.Getpgrp()) }, unix.ESRCH},
		"without a number":    {func(r *call.Request) { r.Origin.Seq = 0 }, unix.EINVAL},
		"memory is missing":   {func(r *call.Request) { r.Nr = call.RtSigqueueinfo; r.Args[2] = 1; r.In = []byte{1} }, unix.EINVAL},
		"too much memory":     {func(r *call.Request) { r.In = []byte{1} }, unix.EINVAL},
		"no such user":        {func(r *call.Request) { r.Caller.UID = 1<<32 - 1 }, unix.EINVAL},
	} {
		r := good()
		c.change(r)
		b, err := w.m.ServeCall(t.Context(), 3, ask{r: r}.encode())
		reply, derr := call.DecodeReply(b)
		if err != nil || derr != nil || reply.Errno != c.want {
			t.Errorf("%s: %+v, %v, %v; want %v", name, reply, err, derr, c.want)
		}
	}
	if state(t, pid) == 'Z' {
		t.Error("the process was killed")
	}
	if b, err := w.m.ServeCall(t.Context(), 3, ask{r: good()}.encode()); err != nil {
		t.Errorf("%x, %v", b, err)
	}
	eventually(t, "the end", func() bool { return state(t, pid) == 'Z' })
}
