package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/proc"
)

// The roles of this package, as first argument of the binary.
const (
	roleSupervisor = "lab-supervisor"
	roleNode       = "lab-node"
)

// Descriptors that Start hands to the supervisor.
const (
	fdLock = 3 + iota
	fdListener
	fdOwner // read end of the owner's pipe; of /dev/null for a detached lab
)

// RunRole runs the role that args (os.Args) ask for, if it is one of a lab, and
// returns its exit status. The program calls it before everything else.
func RunRole(args []string) (status int, ok bool) {
	if len(args) < 3 {
		return 0, false
	}
	var err error
	switch args[1] {
	case roleSupervisor:
		err = supervise(args[2])
	case roleNode:
		err = becomeNode()
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// supervisor is the state of a lab.
type supervisor struct {
	opts   Options
	owned  bool
	since  time.Time
	log    *slog.Logger
	cg     *cgroups
	net    *network
	host   hostFacts
	ctx    context.Context // ends when the lab ends
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // lives of nodes, boots

	mu       sync.Mutex
	machines map[id.Node]*machine
	bootErr  error         // why the first start failed
	booted   chan struct{} // closed when the first start of all nodes is over
}

// nodes are the nodes of a lab: made of namespaces, or machines.
type nodes interface {
	build() error                      // what they need in common
	server() *api.Server               // the methods of the control socket
	bootAll()                          // starts them for the first time
	teardown(server *api.Server) error // ends them
}

func supervise(name string) error {
	for fd := fdLock; fd <= fdOwner; fd++ {
		unix.CloseOnExec(fd)
	}
	dir, err := os.OpenRoot(dirOf(name))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer dir.Close()
	base, err := os.OpenRoot(baseDir)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer base.Close()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s := &supervisor{since: time.Now(), log: log, machines: map[id.Node]*machine{}, booted: make(chan struct{})}
	raw, err := dir.ReadFile(optionsFile)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := json.Unmarshal(raw, &s.opts); err != nil {
		return fmt.Errorf("lab: %s: %w", optionsFile, err)
	}
	if err := unix.SetNonblock(fdOwner, true); err != nil { // so that the read in awaitEnd can be ended
		return fmt.Errorf("lab: %w", err)
	}
	owner := os.NewFile(fdOwner, "owner")
	defer owner.Close()
	if fi, err := owner.Stat(); err == nil {
		s.owned = fi.Mode()&os.ModeNamedPipe != 0
	}
	lfile := os.NewFile(fdListener, "listener")
	l, err := net.FileListener(lfile)
	if err != nil {
		return fmt.Errorf("lab: control socket: %w", err)
	}
	_ = lfile.Close()
	defer l.Close()
	l.(*net.UnixListener).SetUnlinkOnClose(false)

	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	defer s.cancel(nil)
	var nodes nodes = s
	if s.opts.VM != nil {
		nodes = newMachines(s)
	}
	if err := nodes.build(); err != nil {
		return err
	}
	server := nodes.server()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l.(*net.UnixListener)) }()
	s.wg.Go(nodes.bootAll)
	s.awaitEnd(owner, served)
	err = nodes.teardown(server)
	// The directory goes last: with the lock still held, by the names that the
	// old root knew.
	if rerr := base.RemoveAll(name); err == nil && rerr != nil {
		err = fmt.Errorf("lab: %w", rerr)
	}
	return err
}

// build makes what the nodes need in common.
func (s *supervisor) build() error {
	// A command's path is looked up with the search path of the nodes.
	if err := os.Setenv("PATH", nodePath); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	proc.DefaultSignals() // a node starts as a machine does
	var err error
	if s.host, err = enterOwnRoot(&s.opts); err != nil {
		return err
	}
	if s.cg, err = openCgroups(); err != nil {
		return err
	}
	s.net, err = newNetwork(s.opts.Seed, s.log)
	return err
}

// awaitEnd returns when the lab is to end: by request, signal, the owner's end,
// or a failing control socket.
func (s *supervisor) awaitEnd(owner *os.File, served <-chan error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	defer signal.Stop(signals)
	gone := make(chan struct{})
	if s.owned {
		go func() {
			defer close(gone)
			_, _ = owner.Read(make([]byte, 1)) // nothing is ever written
		}()
	}
	select {
	case <-s.ctx.Done():
		s.log.Info("lab ends", "op", "down")
	case sig := <-signals:
		s.log.Info("lab ends", "op", "signal", "signal", sig.String())
	case <-gone:
		s.log.Info("lab ends", "op", "owner gone")
	case err := <-served:
		s.log.Error("lab ends", "op", "control socket", "err", err)
	}
	s.cancel(errno.New(errno.Unavailable, "lab", 0, "the lab %q ends", s.opts.Name))
	if s.owned {
		_ = owner.SetReadDeadline(time.Unix(1, 0))
		<-gone
	}
}

// teardown ends all nodes. The kernel removes their mounts, namespaces and
// interfaces.
func (s *supervisor) teardown(server *api.Server) error {
	// Commands that run in nodes end with them, and so do their connections.
	err := s.cg.remove(s.cgroup())
	server.Close()
	s.wg.Wait()
	// A start that was under way may have made a cgroup meanwhile.
	if rerr := s.cg.remove(s.cgroup()); err == nil {
		err = rerr
	}
	s.net.close()
	s.cg.close()
	return err
}

func (s *supervisor) cgroup() string { return cgroupStem + s.opts.Name }

// bootAll starts the nodes for the first time.
func (s *supervisor) bootAll() {
	err := s.firstBoot()
	s.mu.Lock()
	s.bootErr = err
	s.mu.Unlock()
	if err != nil {
		s.log.Error("first start", "err", err)
	}
	close(s.booted)
}

func (s *supervisor) firstBoot() error {
	ms := make([]*machine, s.opts.Nodes)
	for i := range ms {
		ms[i] = s.newMachine(id.Node(i + 1))
	}
	if err := s.writeHosts(); err != nil {
		return err
	}
	// All nodes are laid out at once; the first one's tokens let the others go on.
	errs := make([]error, len(ms))
	tokens := make(chan struct{})
	var list []string
	var wg sync.WaitGroup
	for i, m := range ms {
		wg.Go(func() {
			errs[i] = m.start(s.ctx, func() (*join, error) {
				if i == 0 {
					defer close(tokens)
					var err error
					list, err = m.takeTokens(len(ms) - 1)
					return nil, err
				}
				select {
				case <-tokens:
				case <-s.ctx.Done():
					return nil, context.Cause(s.ctx)
				}
				if len(list) < len(ms)-1 {
					return nil, errno.New(errno.Unavailable, "start", m.n, "no token, since node 1 was not set up")
				}
				return &join{token: list[i-1], addr: net.JoinHostPort(Addr(1), icsPort)}, nil
			})
			if i == 0 && errs[0] != nil {
				select {
				case <-tokens:
				default:
					close(tokens)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs { // the first node's failure explains the others'
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) newMachine(n id.Node) *machine {
	m := &machine{n: n, s: s, console: newConsole(), state: Off, since: time.Now(), first: true}
	s.mu.Lock()
	s.machines[n] = m
	s.mu.Unlock()
	return m
}

// machine finds node n.
func (s *supervisor) machine(op string, n id.Node) (*machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.machines[n]; m != nil {
		return m, nil
	}
	return nil, errno.New(errno.NotFound, op, 0, "the lab %q has no node %d: its nodes are 1 to %d", s.opts.Name, n, len(s.machines))
}

// all lists the nodes by number.
func (s *supervisor) all() []*machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*machine, 0, len(s.machines))
	for _, m := range s.machines {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *machine) int { return int(a.n) - int(b.n) })
	return list
}

// add makes one more node and starts it with a token of a node that is on.
func (s *supervisor) add(ctx context.Context) (id.Node, error) {
	select {
	case <-s.booted:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	ms := s.all()
	if len(ms) >= MaxNodes {
		return 0, errno.New(errno.Full, "add", 0, "the lab has %d nodes; more are not possible", len(ms))
	}
	n := id.Node(len(ms) + 1)
	j, err := s.token(ctx, n)
	if err != nil {
		return 0, err
	}
	m := s.newMachine(n)
	if err := s.writeHosts(); err != nil {
		return 0, err
	}
	return n, m.start(ctx, func() (*join, error) { return j, nil })
}

// hostFacts is what the supervisor must know of the host's files after it left
// the host's root.
type hostFacts struct {
	ssi     string   // where /sbin/ssi of a node really is, e.g. /usr/sbin/ssi
	devices []device // device nodes for /dev
}

// pathIn joins a path of a node to where the supervisor sees it.
func (m *machine) pathIn(path string) string {
	return filepath.Join(m.dir(), "root", path)
}

func (m *machine) dir() string { return filepath.Join("/nodes", m.n.String()) }
