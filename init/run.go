package pid1

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ssi/init/boot"
	"ssi/internal/keeper"
	"ssi/internal/sys"
)

// Options are the settings of the role.
type Options struct {
	Exe      string       // the binary that the roles run; default: this one
	Node     []string     // arguments that make it the node role; default {"node"}
	Spawn    []string     // arguments that make it the spawn role; default {"spawn"}
	Mount    []string     // arguments that make it the mount role; without them there is none
	Boot     []string     // arguments that make it the role boot; without them a machine starts without it
	Getty    []string     // arguments, besides the terminal, that make it the role getty; without them there is none
	Services []Service    // more roles of a machine that was started by Boot
	Hostname string       // set if this is process 1 and it is not empty
	RunDir   string       // default /run/ssi
	Cgroup   string       // name of the cgroup made for the spawn role; default "ssi"
	Log      *slog.Logger // default: the kernel's log on a machine of its own, else standard error

	testBoot bool // Boot also in a PID namespace
}

// initd is the state of the role; only the goroutine of Run uses it, except for
// what has a lock of its own (store, ring).
type initd struct {
	o        Options
	log      *slog.Logger
	isInit   bool
	machine  bool     // process 1 of the machine and not of a PID namespace
	certain  bool     // machine is known and not only feared
	mounts   []string // what this process mounted
	cgroup   cgroup
	listener *os.File // the socket of the spawn role
	store    *store
	ring     *ring
	requests chan request
	signals  chan os.Signal
	children chan struct{} // something happened to a child; answered by seen
	seen     chan struct{}
	forked   chan struct{} // of capacity 1: there are children again
	link     *link         // to the node role; nil: it does not run
	mount    *role         // nil: none
	spawn    *role
	node     *role
	roles    []*role   // all of them, in the order of their start
	starting *starting // nil: the machine has started
	watchdog watchdog
	ending   keeper.Ending // not 0: the machine is being ended
}

// ByKernel reports whether the kernel started this program as process 1 of a
// machine: neither its name nor its first argument is one of the commands. The
// kernel passes words on that it does not know, such as splash.
func ByKernel(args []string, command func(name string) bool) bool {
	name := filepath.Base(args[0])
	return os.Getpid() == 1 && os.Getppid() == 0 && (name == "init" || !command(name)) && (len(args) < 2 || !command(args[1]))
}

// Run is the role init. As process 1 it ends with the machine, or with the PID
// namespace; otherwise it returns the exit status for this process.
func Run(o Options) int {
	d := newInitd(o)
	// The main loop allocates next to nothing; memory counts, speed does not.
	debug.SetGCPercent(25)
	d.safely("prepare", d.prepare)
	d.safely("start", d.startRoles)
	sys.ReleaseText() // most of what the start of the program touched is never used again
	for d.ending == 0 {
		d.safely("main loop", d.step)
	}
	d.safely("shutdown", d.shutdown)
	return d.exit()
}

func newInitd(o Options) *initd {
	if o.Exe == "" {
		if exe, err := os.Executable(); err == nil {
			o.Exe = exe
		} else {
			o.Exe = "/proc/self/exe"
		}
	}
	if o.Node == nil {
		o.Node = []string{"node"}
	}
	if o.Spawn == nil {
		o.Spawn = []string{"spawn"}
	}
	if o.RunDir == "" {
		o.RunDir = "/run/ssi"
	}
	if o.Cgroup == "" {
		o.Cgroup = "ssi"
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	d := &initd{
		o: o, log: log, isInit: os.Getpid() == 1,
		store:    &store{files: map[string]*os.File{}},
		ring:     &ring{more: make(chan struct{}, 1)},
		requests: make(chan request, 1),
		signals:  make(chan os.Signal, 16),
		children: make(chan struct{}), seen: make(chan struct{}), forked: make(chan struct{}, 1),
	}
	d.spawn = &role{name: "spawn", args: o.Spawn, prepare: d.prepareSpawn}
	d.node = &role{name: "node", args: o.Node, oomScore: -900, prepare: d.prepareNode}
	d.roles = []*role{d.node, d.spawn}
	if o.Mount != nil {
		d.mount = &role{name: "mount", args: o.Mount, oomScore: -900, prepare: d.prepareKept}
		d.roles = []*role{d.node, d.mount, d.spawn}
	}
	return d
}

// safely runs f; a panic is logged and the role goes on: process 1 may not end.
func (d *initd) safely(op string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			d.log.Error("panic", "op", op, "err", p, "stack", string(debug.Stack()))
			time.Sleep(firstDelay) // a panic that repeats must not take the processor
		}
	}()
	f()
}

// prepare makes everything the roles need. What fails is logged; the node may
// still be of use without it.
func (d *initd) prepare() {
	signal.Notify(d.signals, endSignals()...)
	// A log that nobody reads any more must cost an error and not this process;
	// a handler, unlike ignoring, is not inherited by the roles.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	note := func(err error) {
		if err != nil {
			d.log.Error("boot", "op", "init", "err", err)
		}
	}
	// Whatever this process was started with, the roles and users do not get it.
	note(unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC))
	if d.isInit {
		var err error
		d.mounts, err = mountBasics(basics())
		d.machine, d.certain = wholeMachine()
		if d.machine {
			note(d.useConsole())
		}
		note(err)
		// What is mounted later appears in the view of the users, too.
		note(unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
		if d.o.Hostname != "" {
			note(unix.Sethostname([]byte(d.o.Hostname)))
		}
		note(loopbackUp())
		if d.machine { // Ctrl-Alt-Del becomes SIGINT to process 1
			note(unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))
		}
	} else {
		note(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	note(os.MkdirAll(d.o.RunDir, 0o755))
	var err error
	d.cgroup, err = openCgroup(d.o.Cgroup)
	if err != nil {
		d.log.Warn("remote commands cannot be ended all at once", "op", "cgroup", "err", err)
	} else if err := d.cgroup.limit(); err != nil {
		d.log.Info("users may use up all PIDs of this node", "op", "cgroup", "err", err)
	}
	note(d.listen())
	d.prepareStart()
	go d.watchChildren()
}

// watchChildren wakes the main loop when there is something to reap. It looks and
// leaves everything to reap; a blocked waitid(2) is two thread switches faster
// than SIGCHLD through the runtime. It ends with the process.
func (d *initd) watchChildren() {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WSTOPPED|unix.WCONTINUED|unix.WNOWAIT, nil)
		switch err {
		case nil:
			d.children <- struct{}{}
			<-d.seen
		case unix.EINTR:
		default: // ECHILD
			<-d.forked
		}
	}
}

// lookAtChildren answers watchChildren.
func (d *initd) lookAtChildren() (left bool) {
	defer func() { d.seen <- struct{}{} }()
	return d.reap()
}

// listen makes the socket that the spawn role accepts from. It is kept here, so
// that requests wait while that role starts anew.
func (d *initd) listen() error {
	path := filepath.Join(d.o.RunDir, keeper.SpawnSocket)
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	d.listener, err = l.File()
	return err
}

// prepareSpawn gives the spawn role its socket, and a link by which it leaves
// files here: the gate's listener must outlive it and the node role.
func (d *initd) prepareSpawn() ([]*os.File, []string, func(), error) {
	if d.listener == nil {
		if err := d.listen(); err != nil {
			return nil, nil, nil, err
		}
	}
	l, theirs, err := newLink(d.log, d.store, d.ring, d.requests, keepsFiles)
	if err != nil {
		return nil, nil, nil, err
	}
	fd, err := unix.FcntlInt(d.listener.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		_ = theirs.Close()
		l.close()
		return nil, nil, nil, fmt.Errorf("socket of the spawn role: %w", err)
	}
	env := []string{keeper.FDEnv + "=4", keeper.CgroupEnv + "=" + string(d.cgroup)}
	return []*os.File{os.NewFile(uintptr(fd), "spawn"), theirs}, env, l.close, nil
}

// prepareKept gives a role a link by which it leaves files here, and takes those of
// others: the mount role its file system, for its next life; a getty the listener of
// whom it lets into the process space.
func (d *initd) prepareKept() ([]*os.File, []string, func(), error) {
	l, theirs, err := newLink(d.log, d.store, d.ring, d.requests, keepsFiles)
	if err != nil {
		return nil, nil, nil, err
	}
	return []*os.File{theirs}, []string{keeper.FDEnv + "=3"}, l.close, nil
}

func (d *initd) prepareNode() ([]*os.File, []string, func(), error) {
	l, theirs, err := newLink(d.log, d.store, d.ring, d.requests, runsNode)
	if err != nil {
		return nil, nil, nil, err
	}
	d.link = l
	end := func() {
		d.link = nil
		l.close()
	}
	return []*os.File{theirs}, []string{keeper.FDEnv + "=3", keeper.CgroupEnv + "=" + string(d.cgroup)}, end, nil
}

// startRoles starts what is due.
func (d *initd) startRoles() {
	now := time.Now()
	for _, r := range d.roles {
		if r.pid == 0 && !r.off && !now.Before(r.due) {
			if err := r.start(d.o.Exe, now); err != nil {
				d.log.Error("role does not start", "op", r.name, "again_in", r.delay, "err", err)
			}
			d.tellForked()
		}
	}
}

// tellForked wakes watchChildren where there were no children.
func (d *initd) tellForked() {
	select {
	case d.forked <- struct{}{}:
	default:
	}
}

// step starts what is due, waits for one event and acts on it.
func (d *initd) step() {
	if d.starting != nil && d.starting.over {
		d.afterBoot()
	}
	d.startRoles()
	d.watchdog.ping(time.Now())
	wait := d.watchdog.wait(time.Now())
	for _, r := range d.roles {
		if r.pid == 0 && !r.off {
			wait = min(wait, time.Until(r.due))
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-d.children:
		d.lookAtChildren()
	case s := <-d.signals:
		d.signalled(s)
	case r := <-d.requests:
		d.requested(r)
	case <-t.C:
	}
}

// requested carries out what a role may ask.
func (d *initd) requested(r request) {
	switch r.op {
	case keeper.OpRespawn:
		d.spawn.signal(unix.SIGKILL)
	case keeper.OpReady:
		d.startLate(time.Now())
	case keeper.OpEnd:
		d.end(keeper.Ending(r.arg[0]), "a role")
	case keeper.OpSwitchRoot:
		if d.starting != nil {
			d.starting.newRoot = r.arg
		}
	case keeper.OpWatchdog:
		t := time.Duration(binary.BigEndian.Uint32([]byte(r.arg))) * time.Second
		if err := d.watchdog.open(watchdogFile, t); err != nil {
			d.log.Error("no watchdog", "op", "watchdog", "err", err)
		}
	}
}

func (d *initd) signalled(s os.Signal) {
	d.end(endingOf(s, d.isInit, d.machine && d.certain), "signal "+signalName(s))
}

func (d *initd) end(e keeper.Ending, by string) {
	if d.ending == 0 {
		d.ending = e
		d.log.Info("ending", "op", e.String(), "by", by)
	}
}

// reap collects every child that ended, stopped or continued, and reports
// whether any is left. It is the only wait of the process.
func (d *initd) reap() (left bool) {
	for {
		var ws unix.WaitStatus
		var ru unix.Rusage
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WUNTRACED|unix.WCONTINUED, &ru)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil: // ECHILD
			return false
		case pid == 0:
			return true
		}
		if r := d.roleOf(pid); r == nil {
			if e := exitOf(pid, ws, &ru); d.link == nil || !d.link.tell(e) {
				d.ring.add(e)
			}
		} else if ws.Exited() || ws.Signaled() {
			r.exited(time.Now())
			r.off = r.ends && ws.Exited() && ws.ExitStatus() == boot.StatusNoLogin
			if d.starting != nil && r == d.starting.role {
				d.starting.over, d.starting.status = true, ws
				r.off = false
			} else if d.ending == 0 && !r.ends {
				d.log.Warn("role ended", "op", r.name, "pid", pid, "err", describe(ws), "again_in", r.delay)
			}
		}
	}
}

func (d *initd) roleOf(pid int) *role {
	for _, r := range d.roles {
		if r.pid == pid {
			return r
		}
	}
	return nil
}

// wholeMachine reports whether this is process 1 of the machine and not of a PID
// namespace, by the inode number that PROC_PID_INIT_INO in the kernel's proc_ns.h
// gives the first one. Without /proc it is not certain, and taken for one.
func wholeMachine() (is, certain bool) {
	const first = 0xEFFFFFFC
	to, err := os.Readlink("/proc/self/ns/pid")
	return os.Getpid() == 1 && (err != nil || to == "pid:["+strconv.Itoa(first)+"]"), err == nil
}
