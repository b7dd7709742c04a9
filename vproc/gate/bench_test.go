package gate

import (
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// The benchmarks run in callers, which make a call count times; what is measured is
// the whole of that, so it takes some thousands of calls to mean something.

func bench(b *testing.B, p *program, nr uint64, args [6]uint64, mem ...memArg) {
	b.Helper()
	p.call(unix.SYS_GETPID, [6]uint64{})
	b.ResetTimer()
	r := wait(b, p.order(order{Nr: nr, Args: args, Mem: mem, Times: b.N}))
	b.StopTimer()
	if r.Errno != 0 {
		b.Fatal(r.Errno)
	}
}

// plain is a caller without the filter.
func plain(b *testing.B) *program {
	b.Helper()
	return startAs(b, nil, nil, callerMode)
}

func BenchmarkUnhooked(b *testing.B) {
	b.Run("native", func(b *testing.B) { bench(b, plain(b), unix.SYS_GETPPID, [6]uint64{}) })
	b.Run("filter", func(b *testing.B) { bench(b, caller(b), unix.SYS_GETPPID, [6]uint64{}) })
}

func BenchmarkLocalKill(b *testing.B) {
	for _, c := range []struct {
		name string
		p    func() *program
	}{{"native", func() *program { return plain(b) }}, {"filter", func() *program { return caller(b) }}} {
		b.Run(c.name, func(b *testing.B) {
			p := c.p()
			bench(b, p, unix.SYS_KILL, [6]uint64{uint64(p.cmd.Process.Pid), 0})
		})
	}
}

func BenchmarkCaught(b *testing.B) {
	slow := handlerFunc(func(context.Context, *call.Request) call.Outcome { return value(0) })
	quick := func(*call.Request) (call.Outcome, bool) { return value(0), true }
	for _, c := range []struct {
		name  string
		by    []string
		uid   int
		nr    uint64
		args  [6]uint64
		mem   []memArg
		quick func(*call.Request) (call.Outcome, bool)
	}{
		{name: "quick", nr: unix.SYS_KILL, args: [6]uint64{foreignPID(1), 0}, quick: quick},
		{name: "handler", uid: 4242, nr: unix.SYS_KILL, args: [6]uint64{foreignPID(1), 0}},
		{name: "memory in", uid: 4242, nr: unix.SYS_RT_SIGQUEUEINFO, args: [6]uint64{foreignPID(1), 9}, mem: []memArg{{2, make([]byte, 128)}}},
		{name: "nested", by: []string{"unshare", "-Upf"}, nr: unix.SYS_KILL, args: [6]uint64{1, 0}, quick: quick},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := caller(b, c.by...)
			openWith(b, Config{Handler: slow, Quick: c.quick, Kept: map[uint64]*os.File{1: p.listener}}, limits{userCalls, callTime, lateTime})
			if c.uid != 0 {
				wait(b, p.order(order{Become: &[2]int{c.uid, c.uid}}))
			}
			bench(b, p, c.nr, c.args, c.mem...)
		})
	}
}
