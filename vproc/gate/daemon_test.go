package gate

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
	"ssi/vproc/call"
)

// lives is how many daemons serve the calls of TestKilledDaemon.
const lives = 20

// answers is the value of a call of getsid(2) in this file.
func answers(pid uint64) int64 { return int64(pid)*3 + 1 }

// runGate is a daemon with the listener as descriptor 3. Its arguments are the
// journal, a file to which it writes the origin and argument of each call that it is
// about to execute, and how old it is. The younger it is, the more calls hang in it.
func runGate(args []string) error {
	age, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	record, err := os.OpenFile(args[1], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = New(Config{
		Log: slog.New(slog.DiscardHandler), Node: testNode(), Journal: args[0],
		Kept: map[uint64]*os.File{1: os.NewFile(3, "listener")},
		Handler: handlerFunc(func(ctx context.Context, r *call.Request) call.Outcome {
			// Lines of 64 bytes: none crosses a page, so each is there whole or not at all.
			line := fmt.Sprint(r.Origin.Node, " ", r.Origin.Incarnation, " ", r.Origin.Seq, " ", r.Args[0])
			if _, err := fmt.Fprintf(record, "%-63s\n", line); err != nil {
				exit(err)
			}
			if int(r.Args[0])%lives > age {
				<-ctx.Done()
			}
			return value(answers(r.Args[0]))
		}),
	})
	if err != nil {
		return err
	}
	select {}
}

func startDaemon(t *testing.T, listener *os.File, journal, record string, age int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(self(t), gateMode, journal, record, strconv.Itoa(age))
	cmd.ExtraFiles = []*os.File{listener}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// execution is a line of the record.
type execution struct {
	origin call.Origin
	pid    uint64
}

func readRecord(t *testing.T, path string) []execution {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return nil // not yet there
	}
	defer func() { _ = f.Close() }()
	var all []execution
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e execution
		if _, err := fmt.Sscan(lines.Text(), &e.origin.Node, &e.origin.Incarnation, &e.origin.Seq, &e.pid); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// Daemons are killed amid a thousand caught calls, at no particular moments, while
// signals rain on the caller. Each call returns, once and with its own value; what
// was begun by one daemon is gone on with by the next under the same origin, and
// under no other.
func TestKilledDaemon(t *testing.T) {
	const calls = 1000
	p := caller(t)
	dir := t.TempDir()
	journal, record := filepath.Join(dir, "journal"), filepath.Join(dir, "record")
	results := make([]<-chan result, calls)
	for i := range results {
		results[i] = p.order(order{Nr: unix.SYS_GETSID, Args: [6]uint64{foreignPID(i)}})
	}
	for age := range lives {
		before := len(readRecord(t, record))
		d := startDaemon(t, p.listener, journal, record, age)
		if age == lives-1 {
			break
		}
		eventually(t, "executions", func() bool {
			_ = unix.Kill(p.cmd.Process.Pid, unix.SIGWINCH)
			return len(readRecord(t, record)) > before+4*age // each has 100 at least
		})
		_ = d.Process.Kill()
		_ = d.Wait()
	}
	for i, c := range results {
		if r := wait(t, c); r.Errno != 0 || r.Ret != answers(foreignPID(i)) {
			t.Errorf("call %d: %d, %v", i, r.Ret, r.Errno)
		}
	}
	pids, origins := map[call.Origin]uint64{}, map[uint64]call.Origin{}
	again := 0
	for _, e := range readRecord(t, record) {
		if o, ok := origins[e.pid]; ok {
			again++
			if o != e.origin {
				t.Errorf("call %d was executed as %v and as %v", e.pid, o, e.origin)
			}
		}
		if pid, ok := pids[e.origin]; ok && pid != e.pid {
			t.Errorf("%v are two calls, %d and %d", e.origin, pid, e.pid)
		}
		origins[e.pid], pids[e.origin] = e.origin, e.pid
	}
	if len(origins) != calls || again == 0 {
		t.Errorf("%d calls were executed, %d times again", len(origins), again)
	}
	t.Logf("%d executions were begun again", again)
}

// A gate that is closed leaves its calls to the next one, which refuses none of them.
func TestClosedGate(t *testing.T) {
	p := caller(t)
	journal := filepath.Join(t.TempDir(), "journal")
	origins := make(chan call.Origin, 2)
	h := handlerFunc(func(ctx context.Context, r *call.Request) call.Outcome {
		origins <- r.Origin
		<-ctx.Done()
		return call.Fail(unix.EHOSTDOWN)
	})
	wait(t, p.order(order{Become: &[2]int{4242, 4242}}))
	second := duplicate(t, p.listener)
	g := openWith(t, Config{Journal: journal, Handler: h, Kept: map[uint64]*os.File{4: p.listener}}, limits{userCalls, callTime, lateTime})
	c := p.order(order{Nr: unix.SYS_GETSID, Args: [6]uint64{foreignPID(2)}})
	first := <-origins
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	g = openWith(t, Config{Journal: journal, Kept: map[uint64]*os.File{4: second}, Handler: handlerFunc(func(_ context.Context, r *call.Request) call.Outcome {
		origins <- r.Origin
		return value(5)
	})}, limits{0, callTime, lateTime})
	if r := wait(t, c); r.Ret != 5 || r.Errno != 0 {
		t.Errorf("%d, %v", r.Ret, r.Errno)
	}
	if again := <-origins; again != first {
		t.Errorf("the call was %v and is %v", first, again)
	}
	if r := p.call(unix.SYS_GETSID, [6]uint64{foreignPID(2)}); r.Errno != unix.EAGAIN {
		t.Errorf("a call above the limit: %d, %v", r.Ret, r.Errno)
	}
	allFree(t, g)
}

func duplicate(t testing.TB, f *os.File) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "duplicate")
}

// Calls in the journal of which nobody waits for an answer are forgotten: their
// listener is gone, or the caller, or they were answered just before the end.
func TestLeftovers(t *testing.T) {
	p := caller(t)
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := openJournal(path, logOf(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, listener := range []uint64{7, 8, 8} {
		slot := <-j.free
		j.prepare(slot, listener)
		*j.notification(slot) = sys.Notification{ID: uint64(i) + 1, TID: uint32(p.cmd.Process.Pid), Arch: unix.AUDIT_ARCH_X86_64, Nr: unix.SYS_KILL}
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	h := &recorder{}
	g := openWith(t, Config{Journal: path, Handler: h, Kept: map[uint64]*os.File{8: p.listener}}, limits{userCalls, callTime, lateTime})
	allFree(t, g)
	if h.count() != 0 {
		t.Errorf("the handler was asked %d times", h.count())
	}
	if r := p.call(unix.SYS_GETSID, [6]uint64{foreignPID(2)}); r.Errno != 0 || h.last(t).Origin.Seq != 4 {
		t.Errorf("%v, %+v", r.Errno, h.last(t).Origin)
	}
}

// A journal that cannot be gone on with is begun anew: what it named means nothing.
func TestJournalBegunAnew(t *testing.T) {
	for name, damage := range map[string]func(j *journal){
		"another version": func(j *journal) { j.mem[0]++ },
		"another boot":    func(j *journal) { j.mem[offBootID]++ },
		"no incarnation":  func(j *journal) { clear(j.mem[offBoot:offNext]) },
		"no sequence":     func(j *journal) { clear(j.mem[offNext:offBootID]) },
		"a sequence number of the future": func(j *journal) {
			j.notification(9).ID = 1
			j.slot(9)[offSeq] = 200
		},
		"a sequence number twice": func(j *journal) {
			for range 2 {
				i := <-j.free
				j.prepare(i, 1)
				j.notification(i).ID = uint64(i) + 1
				j.slot(i)[offSeq] = 1
			}
		},
	} {
		path := filepath.Join(t.TempDir(), "journal")
		j, _, err := openJournal(path, logOf(t))
		if err != nil {
			t.Fatal(err)
		}
		i := <-j.free
		j.prepare(i, 1)
		j.notification(i).ID = 77
		same, left, err := openJournal(path, logOf(t))
		if err != nil || len(left) != 1 || same.incarnation != j.incarnation || same.seq(left[0]) != 1 {
			t.Errorf("%s: undamaged: %v, %v", name, left, err)
		}
		damage(j)
		other, left, err := openJournal(path, logOf(t))
		if err != nil || len(left) != 0 || len(other.free) != slots || other.incarnation == j.incarnation {
			t.Errorf("%s: %v, %v", name, left, err)
		}
	}
	if _, _, err := openJournal(filepath.Join(t.TempDir(), "no", "journal"), logOf(t)); err == nil {
		t.Error("a journal in no directory")
	}
}
