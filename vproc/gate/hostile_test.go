package gate

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// blocker is a Handler that holds calls until it is opened.
type blocker struct {
	held atomic.Int64
	open chan struct{}
}

func newBlocker() *blocker { return &blocker{open: make(chan struct{})} }

func (b *blocker) Handle(ctx context.Context, r *call.Request) call.Outcome {
	b.held.Add(1)
	select {
	case <-b.open:
	case <-ctx.Done():
		return call.Fail(unix.EINTR)
	}
	return value(int64(r.Origin.Node))
}

// Calls that come at once have a worker each; few of these stay, and serve the next.
func TestWorkers(t *testing.T) {
	p := caller(t)
	h := newBlocker()
	g := open(t, h, p.listener)
	g.mu.Lock()
	l := g.listeners[1]
	g.mu.Unlock()
	for round := range 3 {
		var results []<-chan result
		for range 3 * keptWorkers {
			results = append(results, p.order(order{Nr: unix.SYS_GETSID, Args: [6]uint64{foreignPID(1)}}))
		}
		if round == 0 {
			eventually(t, "held calls", func() bool { return h.held.Load() == int64(len(results)) })
			close(h.open)
		}
		for _, c := range results {
			if r := wait(t, c); r.Errno != 0 || r.Ret != int64(testNode()) {
				t.Errorf("%d, %v", r.Ret, r.Errno)
			}
		}
		allFree(t, g)
		eventually(t, "workers that stay", func() bool { return l.idle.Load() == keptWorkers })
	}
	if n := h.held.Load(); n != 9*keptWorkers {
		t.Errorf("the handler was asked %d times", n)
	}
}

// One user cannot take the slots of the others.
func TestUserLimit(t *testing.T) {
	const most = 5
	p, root := caller(t), caller(t)
	wait(t, p.order(order{Become: &[2]int{4242, 4242}}))
	h := newBlocker()
	g := openWith(t, Config{Handler: h, Kept: map[uint64]*os.File{1: p.listener, 2: root.listener}}, limits{most, callTime, lateTime})
	results := make(chan result)
	for range 20 {
		c := p.order(order{Nr: unix.SYS_GETSID, Args: [6]uint64{foreignPID(1)}})
		go func() { results <- <-c }()
	}
	for i := range 20 - most {
		if r := <-results; r.Errno != unix.EAGAIN {
			t.Errorf("result %d: %d, %v", i, r.Ret, r.Errno)
		}
	}
	eventually(t, "held calls", func() bool { return h.held.Load() == most })
	ofRoot := make([]<-chan result, 2*most)
	for i := range ofRoot {
		ofRoot[i] = root.order(order{Nr: unix.SYS_GETSID, Args: [6]uint64{foreignPID(1)}})
	}
	eventually(t, "held calls of root", func() bool { return h.held.Load() == 3*most })
	close(h.open)
	for range most {
		if r := <-results; r.Errno != 0 {
			t.Error(r.Errno)
		}
	}
	for _, c := range ofRoot {
		if r := wait(t, c); r.Errno != 0 {
			t.Error(r.Errno)
		}
	}
	allFree(t, g)
}

// More calls than slots wait in the kernel.
func TestMoreCallsThanSlots(t *testing.T) {
	const calls = slots + 300
	p := caller(t)
	h := newBlocker()
	g := open(t, h, p.listener)
	results := make([]<-chan result, calls)
	for i := range results {
		results[i] = p.order(order{Nr: unix.SYS_GETSID, Args: [6]uint64{foreignPID(1)}})
	}
	eventually(t, "held calls", func() bool { return h.held.Load() == slots })
	close(h.open)
	for _, c := range results {
		if r := wait(t, c); r.Errno != 0 {
			t.Error(r.Errno)
		}
	}
	allFree(t, g)
}

// A handler that does not come back costs its caller an error, and a slot until it
// does.
func TestLateHandler(t *testing.T) {
	p := caller(t)
	release, expired := make(chan struct{}), make(chan struct{})
	g := openWith(t, Config{Handler: handlerFunc(func(ctx context.Context, r *call.Request) call.Outcome {
		if r.Nr == call.Getsid {
			return value(1)
		}
		<-ctx.Done()
		close(expired)
		<-release
		return value(0)
	}), Kept: map[uint64]*os.File{1: p.listener}}, limits{userCalls, time.Millisecond, time.Millisecond})
	if r := p.call(unix.SYS_KILL, [6]uint64{foreignPID(1), 9}); r.Errno != unix.ETIMEDOUT {
		t.Errorf("%d, %v", r.Ret, r.Errno)
	}
	<-expired
	if r := p.call(unix.SYS_GETSID, [6]uint64{foreignPID(1)}); r.Ret != 1 {
		t.Errorf("%d, %v", r.Ret, r.Errno)
	}
	close(release)
	allFree(t, g)
}

// A program whose memory answers when it likes holds up itself alone.
func TestMemoryThatHangs(t *testing.T) {
	p, other := caller(t), caller(t)
	h := &recorder{}
	g := openWith(t, Config{Handler: h, Kept: map[uint64]*os.File{1: p.listener, 2: other.listener}}, limits{userCalls, callTime, lateTime})
	fd := p.call(unix.SYS_USERFAULTFD, [6]uint64{unix.O_CLOEXEC})
	if fd.Errno != 0 {
		t.Skipf("userfaultfd: %v", fd.Errno)
	}
	addr := uint64(p.call(unix.SYS_MMAP, [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, 1<<64 - 1}).Ret)
	api := make([]byte, 24) // struct uffdio_api
	api[0] = 0xaa           // UFFD_API
	if r := p.call(unix.SYS_IOCTL, [6]uint64{uint64(fd.Ret), 0xc018aa3f}, memArg{2, api}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	reg := words(uint32(addr), uint32(addr>>32), 4096, 0, 1, 0, 0, 0) // struct uffdio_register, missing pages
	if r := p.call(unix.SYS_IOCTL, [6]uint64{uint64(fd.Ret), 0xc020aa00}, memArg{2, reg}); r.Errno != 0 {
		t.Fatal(r.Errno)
	}
	p.order(order{Nr: unix.SYS_PRLIMIT64, Args: [6]uint64{foreignPID(1), 7, addr, 0}})
	event := p.call(unix.SYS_READ, [6]uint64{uint64(fd.Ret), 0, 32}, memArg{1, make([]byte, 32)}) // returns when the gate has met the page
	if event.Errno != 0 {
		t.Fatal(event.Errno)
	}
	if r := other.call(unix.SYS_GETSID, [6]uint64{foreignPID(1)}); r.Errno != 0 {
		t.Error(r.Errno)
	}
	if r := p.call(unix.SYS_GETSID, [6]uint64{foreignPID(1)}); r.Errno != 0 {
		t.Error(r.Errno)
	}
	p.kill()
	allFree(t, g)
}

// attackMode makes calls with rubbish in all registers, from threads that map,
// unmap and protect what they point to, until it is killed. A thread in a hundred
// executes the program anew, in the middle of the calls of the others.
func attack(seed uint64) error {
	const pages = 4
	shared, err := unix.Mmap(-1, 0, (pages+2)*4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	shared = shared[4096:][:pages*4096] // nothing lies just before and after
	base := uint64(uintptr(unsafe.Pointer(&shared[0])))
	var rows []call.Call
	for _, c := range call.Table() {
		if c.X64 >= 0 {
			rows = append(rows, c)
		}
	}
	for i := range 4 {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		go func() {
			runtime.LockOSThread()
			for {
				args := [6]uint64{}
				for j := range args {
					switch r.IntN(4) {
					case 0:
						args[j] = foreignPID(r.IntN(1000))
					case 1:
						args[j] = base + uint64(r.IntN(pages*4096+64)) - 32
					case 2:
						args[j] = uint64(r.IntN(64))
					case 3:
						args[j] = r.Uint64()
					}
				}
				row := rows[r.IntN(len(rows))]
				if row.Class != call.Always { // whom it names is nobody here
					args[row.PID] = foreignPID(r.IntN(1000))
				}
				_, _, _ = unix.Syscall6(uintptr(row.X64), uintptr(args[0]), uintptr(args[1]), uintptr(args[2]), uintptr(args[3]), uintptr(args[4]), uintptr(args[5]))
				if r.IntN(500) == 0 {
					_ = unix.Exec("/proc/self/exe", []string{os.Args[0], attackMode}, nil)
				}
			}
		}()
	}
	for i := 0; ; i++ {
		prot := []int{unix.PROT_READ | unix.PROT_WRITE, unix.PROT_READ, unix.PROT_NONE}[i%3]
		_ = unix.Mprotect(shared[4096*(i%pages):][:4096], prot)
		_ = unix.Madvise(shared, unix.MADV_DONTNEED)
		runtime.Gosched()
	}
}

// The gate stands what programs do that mean it harm: it serves the others, and is
// left as it was.
func TestHostilePrograms(t *testing.T) {
	other := caller(t)
	var asked atomic.Int64
	g := openWith(t, Config{Kept: map[uint64]*os.File{1: other.listener}, Handler: handlerFunc(func(_ context.Context, r *call.Request) call.Outcome {
		n := asked.Add(1)
		o := value(0)
		o.Reply.Out = pattern(int(r.OutLen))
		switch n % 5 {
		case 0:
			return call.Fail(unix.ESRCH)
		case 1:
			if f, err := os.Open("/dev/null"); err == nil {
				return call.Outcome{File: f, CloseOnExec: true}
			}
		}
		return o
	})}, limits{userCalls, callTime, lateTime})
	threads := runtime.NumGoroutine()
	for life := range 10 {
		p := start(t, nil, self(t), attackMode)
		if err := g.Add(p.listener, uint64(life)+2); err != nil {
			t.Fatal(err)
		}
		before := asked.Load()
		eventually(t, "an attack", func() bool { return asked.Load() > before+300 })
		if r := other.call(unix.SYS_RT_SIGQUEUEINFO, [6]uint64{foreignPID(1), 9}, memArg{2, pattern(128)}); r.Errno != 0 && r.Errno != unix.ESRCH {
			t.Errorf("another's call: %v", r.Errno)
		}
		p.kill()
	}
	eventually(t, "the end of the attackers' receivers", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.listeners) == 1
	})
	allFree(t, g)
	eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= threads+10 }) // those of the callers' connections
}
