package gate

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// The kernel does with the filter what the emulator does: for a harmless call with
// all values, for all calls with one that is foreign, and for those that are caught
// with a PID of the node too.
func TestFilterInKernel(t *testing.T) {
	const answer = 4711
	p := caller(t)
	open(t, handlerFunc(func(context.Context, *call.Request) call.Outcome { return value(answer) }), p.listener)
	getsid, _ := call.Getsid.Row()
	for _, v := range edges(testNode()) {
		r := p.call(unix.SYS_GETSID, [6]uint64{v})
		if caught, want := r.Ret == answer, isCaught(testNode(), &getsid, &[6]uint64{v}); caught != want {
			t.Errorf("getsid(%#x): %d, %v, want it caught: %v", v, r.Ret, r.Errno, want)
		}
	}
	for _, c := range call.Table() {
		if c.X64 < 0 || c.Nr == call.PidfdSendSignal { // that names a file
			continue
		}
		args := [6]uint64{}
		if c.Class != call.Always {
			args[c.PID] = foreignPID(7)
		}
		if c.Class == call.Which {
			args[0] = uint64(c.Self)
		}
		if r := p.call(uint64(c.X64), args); r.Ret != answer {
			t.Errorf("%s %x: %d, %v", c.Name, args, r.Ret, r.Errno)
		}
		local := uint64(p.cmd.Process.Pid)
		if c.Class == call.Named || c.Class == call.Which {
			args[c.PID] = local
			if r := p.call(uint64(c.X64), args); r.Ret != answer {
				t.Errorf("%s %x: %d, %v", c.Name, args, r.Ret, r.Errno)
			}
		}
		for _, sig := range []uint64{uint64(unix.SIGSTOP), uint64(unix.SIGCONT)} {
			if c.Signal == 0 {
				break
			}
			args := args
			args[c.PID], args[c.PID2], args[c.Signal] = local, local, sig
			if r := p.call(uint64(c.X64), args); r.Ret != answer {
				t.Errorf("%s %x: %d, %v", c.Name, args, r.Ret, r.Errno)
			}
		}
		if c.Class == call.Pair {
			args[c.PID], args[c.PID2] = 0, foreignPID(7)
			if r := p.call(uint64(c.X64), args); r.Ret != answer {
				t.Errorf("%s %x: %d, %v", c.Name, args, r.Ret, r.Errno)
			}
		}
	}
}
