package ptrace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/member"
	"ssi/internal/id"
	"ssi/vproc/call"
)

const (
	maxCalls  = 64
	userCalls = 16
	// closeTime is how long Close waits.
	closeTime = 5 * time.Second
)

// Peers is the other nodes.
type Peers interface {
	// Call asks a node. It ends with an error when the node leaves the membership.
	Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error
}

// Config is what a Server is made of.
type Config struct {
	Self    id.Node
	Members func() *member.View
	Peers   Peers
	Log     *slog.Logger
}

// Server answers rexecve.
type Server struct {
	cfg Config
	nr  uint64 // of rexecve
	exe string // path of this program

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	calls  sync.WaitGroup // under way, and checks; Add only under mu while not closed
	checks chan struct{}

	mu      sync.Mutex
	closed  bool
	callers map[int32]uint32 // processes whose call is under way, and their real users
}

// New makes a Server. The caller must close it.
func New(c Config) (*Server, error) {
	row, ok := call.Rexecve.Row()
	if !ok {
		return nil, errors.New("ptrace: there is no call rexecve")
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("ptrace: %w", err)
	}
	s := &Server{
		cfg: c, nr: uint64(row.X64), exe: strings.TrimSuffix(exe, " (deleted)"), // replaced by a newer one
		checks: make(chan struct{}, maxChecks), callers: map[int32]uint32{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close lets all callers go and waits for what is under way. An error tells that
// something hangs; it ends with the program for which it hangs.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	done := make(chan struct{})
	go func() {
		s.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(closeTime):
		return fmt.Errorf("rexecve: calls still hang %v after they were given up", closeTime)
	}
}

// add counts something that Close has to wait for.
func (s *Server) add() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.calls.Add(1)
	return true
}

// enter begins a call.
func (s *Server) enter(c *call.Caller) unix.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.callers) >= maxCalls {
		return unix.EAGAIN
	}
	if _, other := s.callers[c.PID]; other {
		return unix.EAGAIN
	}
	n := 0
	for _, uid := range s.callers {
		if uid == c.UID {
			n++
		}
	}
	if c.UID != 0 && n >= userCalls {
		return unix.EAGAIN
	}
	s.callers[c.PID] = c.UID
	s.calls.Add(1)
	return 0
}

func (s *Server) leave(c *call.Caller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.callers, c.PID)
}

// Handle decides about a call of rexecve that the gate caught:
//
//	rexecve(char *path, char **argv, char **envp, int node)
//
// The outcome is to be the answer, soon: what comes after it waits for it. See
// gate.Handler.
func (s *Server) Handle(ctx context.Context, r *call.Request) call.Outcome {
	if !supported || r.Nr != call.Rexecve {
		return call.Fail(unix.ENOSYS)
	}
	if e := s.reachable(r.Int(3)); e != 0 {
		return call.Fail(e)
	}
	if e := s.enter(&r.Caller); e != 0 {
		return call.Fail(e)
	}
	o := &operation{s: s, r: *r, asked: ctx, answers: make(chan call.Outcome)}
	o.ends = sync.OnceFunc(func() { s.leave(&o.r.Caller) })
	o.thread = thread{tid: int(r.Caller.TID), pid: int(r.Caller.PID), nr: s.nr, ends: o.ends}
	go func() {
		defer s.calls.Done()
		defer o.ends()
		o.onThread()
	}()
	select {
	case a := <-o.answers:
		return a
	case <-ctx.Done():
		return call.Fail(unix.ETIMEDOUT)
	}
}

// reachable tells whether a node can run programs.
func (s *Server) reachable(n int32) unix.Errno {
	if n < 1 || n > int32(id.MaxNode) {
		return unix.EINVAL
	}
	node := s.cfg.Members().Get(id.Node(n))
	switch {
	case id.Node(n) == s.cfg.Self:
		return 0
	case node.State == member.NeverUp || node.Info.Witness:
		return unix.EINVAL
	case node.State != member.Up:
		return unix.EHOSTDOWN
	}
	return 0
}

// operation is one call.
type operation struct {
	s       *Server
	r       call.Request // a copy: Handle returns before the end
	thread  thread
	ends    func()            // the process may call again
	asked   context.Context   // of Handle
	answers chan call.Outcome // taken by Handle, while asked lasts
}

// onThread carries the call out on a thread that ends with it.
func (o *operation) onThread() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot be ended. Keep it away from the next try.
			o.onThread()
			runtime.UnlockOSThread()
			return
		}
		// A goroutine that ends without UnlockOSThread takes its thread with it.
		o.run()
	}()
	<-done
}

// answer has Handle return a, unless it has returned.
func (o *operation) answer(a call.Outcome) bool {
	select {
	case o.answers <- a:
		return true
	case <-o.asked.Done():
		if a.File != nil {
			_ = a.File.Close()
		}
		return false
	}
}

func (o *operation) run() {
	if err := o.thread.seize(); err != nil {
		o.ends()
		o.refuse(err)
		return
	}
	p, err := o.prepare()
	if ierr := unix.PtraceInterrupt(o.thread.tid); ierr != nil {
		err = errGone
	}
	switch {
	case err != nil:
		p.discard()
		if !o.refuse(err) {
			return
		}
		p = nil
	case p.file != nil:
		if !o.answer(call.Outcome{File: p.file}) {
			return
		}
	default:
		if !o.answer(call.Fail(unix.EAGAIN)) { // seen only if nothing comes after it
			return
		}
	}
	if err := o.finish(p); err != nil && !errors.Is(err, errGone) && o.s.ctx.Err() == nil {
		o.s.cfg.Log.Warn("a caller was let go", "op", "rexecve", "pid", o.r.Caller.PID, "err", err)
	}
}

// refuse has Handle return the error that is in err.
func (o *operation) refuse(err error) bool {
	e := errnoOf(err)
	if e == unix.EIO && !errors.Is(err, errGone) && o.asked.Err() == nil {
		o.s.cfg.Log.Error("a program cannot be executed elsewhere", "op", "rexecve", "pid", o.r.Caller.PID, "err", err)
	}
	return o.answer(call.Fail(e))
}

// plan is what the caller is to execute. With a file, that is to be argument 0.
type plan struct {
	nr   uint64
	args [5]uint64
	file *os.File
}

func (p *plan) discard() {
	if p != nil && p.file != nil {
		_ = p.file.Close()
	}
}

// prepare finds out what the caller is to execute.
func (o *operation) prepare() (*plan, error) {
	if err := o.thread.waitsIn(&o.r); err != nil {
		return nil, err
	}
	a := &o.r.Args
	node := id.Node(o.r.Int(3))
	if node == o.s.cfg.Self {
		return &plan{nr: unix.SYS_EXECVE, args: [5]uint64{a[0], a[1], a[2]}}, nil
	}
	m := memoryOf(o.thread.tid)
	path, e := m.text(a[0], unix.PathMax-1, unix.ENAMETOOLONG)
	if e != 0 {
		return nil, e
	}
	if len(path) == 0 {
		return nil, unix.ENOENT
	}
	arg0, size, e := m.texts(a[1], maxStrings)
	if e == 0 {
		_, _, e = m.texts(a[2], maxStrings-size)
	}
	if e != 0 {
		return nil, e
	}
	dir, err := o.place()
	if err != nil {
		return nil, err
	}
	q := question{Path: path, Dir: dir, UID: o.r.Caller.EUID, GID: o.r.Caller.EGID, Groups: o.r.Caller.Groups}
	if err := o.s.ask(o.asked, node, &q); err != nil {
		return nil, err
	}
	order := Order{Node: node, Path: path, Arg0: arg0[:min(len(arg0), unix.PathMax)]}
	file, err := order.file(o.s.exe)
	if err != nil {
		return nil, err
	}
	end := a[0] + uint64(len(path)) // an empty string
	return &plan{unix.SYS_EXECVEAT, [5]uint64{0, end, a[1], a[2], unix.AT_EMPTY_PATH}, file}, nil
}

// place is the working directory of the caller. It must have the root directory of
// this process, and this program in it. Whether the directory is there the node knows
// that is to run the program.
func (o *operation) place() ([]byte, error) {
	root := o.thread.file("root")
	for _, path := range [...]string{"/", o.s.exe} {
		var ours, theirs unix.Stat_t
		if err := unix.Stat(path, &ours); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if err := unix.Stat(root+path, &theirs); err != nil || theirs.Dev != ours.Dev || theirs.Ino != ours.Ino {
			return nil, unix.EOPNOTSUPP
		}
	}
	dir, err := os.Readlink(o.thread.file("cwd"))
	if err != nil {
		return nil, errGone
	}
	if len(dir) == 0 || dir[0] != '/' || len(dir) >= unix.PathMax {
		return nil, unix.ENOENT
	}
	return []byte(dir), nil
}

// finish waits for the stop that follows the answer, and has the caller execute p, or
// go on if that is nil.
func (o *operation) finish(p *plan) error {
	at, err := o.thread.awaitReturn(o.s.ctx, &o.r)
	switch {
	case err != nil:
		return err
	case p == nil:
		return o.thread.detach()
	case p.file == nil:
		return o.thread.become(o.s.ctx, at, p.nr, p.args, -1)
	}
	fd := at.result()
	if fd < 0 { // it cannot take the file, and knows
		return o.thread.detach()
	}
	p.args[0] = uint64(fd)
	return o.thread.become(o.s.ctx, at, p.nr, p.args, fd)
}
