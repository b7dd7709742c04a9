package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/cluster"
	"ssi/cluster/control"
	"ssi/cluster/ics"
	"ssi/cluster/member"
	"ssi/internal/api"
	"ssi/internal/config"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/keeper"
	"ssi/internal/proc"
	"ssi/netboot"
	"ssi/netboot/machine"
	"ssi/vproc/proctab"
	"ssi/vproc/rexec"
	"ssi/vproc/spawn"
	"ssi/vproc/standin"
	"ssi/vproc/window"
)

const (
	runDir = "/run/ssi"
	// identityPoll is how often a machine without a cluster looks whether it has
	// one now, and joinPause how long it waits between tries to join.
	identityPoll = 100 * time.Millisecond
	// identityCheck is how often a node looks whether it is still the node of its
	// cluster that it was.
	identityCheck = 3 * time.Second
	joinPause     = 200 * time.Millisecond // after the first try; it grows by half
	maxJoinPause  = 10 * time.Second
	joinTimeout   = 5 * time.Second
	// failedPause is how long a daemon that could not start tells everyone why,
	// before it tries again.
	failedPause = 10 * time.Second
	// leaveTimeout is how long an orderly departure may take.
	leaveTimeout = 8 * time.Second
	// loadTimeout bounds the question for the loads of the nodes.
	loadTimeout = time.Second
)

// runNode is the role node. It returns when the daemon is to be started anew.
func runNode(version string) int {
	// One processor more than the machine has: when bulk data keeps all of them
	// busy, the membership's messages still find one at once.
	runtime.GOMAXPROCS(runtime.NumCPU() + 1)
	cfg, cfgErr := loadConfig()
	log := roleLog("node", cfg.LogLevel, consoleNews()...)
	n := &nodeRole{cfg: cfg, log: log, version: version}
	keep, err := keeper.Open(log, n.exited)
	if err != nil {
		log.Error("start", "err", err)
		return 1
	}
	defer func() { _ = keep.Close() }()
	n.keep = keep
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	err = cfgErr
	if err == nil {
		err = n.run(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return 0
	case errors.Is(err, cluster.ErrRestart):
		log.Warn("starting anew", "err", err)
		return 0
	}
	log.Error("the node cannot run", "err", err)
	ctx, cancel := context.WithTimeout(ctx, failedPause)
	defer cancel()
	n.explain(ctx, err)
	return 1
}

// nodeRole is the node daemon.
type nodeRole struct {
	cfg     config.Config
	log     *slog.Logger
	version string
	keep    *keeper.Client
	local   *net.UnixListener
	machine *ownMachine // nil: another init cares for it
	reports *reporter   // nil: no other node booted this one

	mu    sync.Mutex
	rexec *rexec.Server
	early []proc.Exit // reported before rexec was there
}

// maxEarly is how many exits are kept until rexec is there.
const maxEarly = 4096

// exited takes the report of PID 1 that a process ended.
func (n *nodeRole) exited(e proc.Exit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rexec != nil {
		n.rexec.Exited(e)
	} else if len(n.early) < maxEarly {
		n.early = append(n.early, e)
	}
}

func (n *nodeRole) setExec(s *rexec.Server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rexec = s
	for _, e := range n.early {
		s.Exited(e)
	}
	n.early = nil
}

// listen takes or opens the local socket.
func (n *nodeRole) listen() error {
	if n.local != nil {
		return nil
	}
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return err
	}
	l, err := n.keep.Listen("api", "unix", api.Socket)
	if err != nil {
		return fmt.Errorf("local socket: %w", err)
	}
	if err := os.Chmod(api.Socket, 0o666); err != nil { // who may do what is decided call by call
		return fmt.Errorf("local socket: %w", err)
	}
	n.local = l.(*net.UnixListener)
	return nil
}

// explain answers every local call with err until ctx ends.
func (n *nodeRole) explain(ctx context.Context, err error) {
	if lerr := n.listen(); lerr != nil {
		n.log.Error("start", "err", lerr)
		return
	}
	s := api.NewServer(n.log)
	s.HandleOther(func(context.Context, *api.Call) error {
		return errno.New(errno.Unavailable, "node", 0, "%w", err)
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(n.local); err != nil {
			n.log.Error("start", "err", err)
		}
	})
	<-ctx.Done()
	s.Close()
	wg.Wait()
}

// run serves as a node until ctx ends, and leaves in order then.
func (n *nodeRole) run(ctx context.Context) error {
	if err := n.listen(); err != nil {
		return err
	}
	var err error
	if n.machine, err = openMachine(n.cfg, n.log, nil); err != nil {
		return err
	}
	defer n.machine.close()
	if err := n.machine.wait(ctx); err != nil {
		return err
	}
	defer func() { n.reports.close() }()
	if err := n.admit(ctx); err != nil {
		return err
	}
	p, err := n.assemble()
	if err != nil {
		return err
	}
	defer p.close()
	return p.serve(ctx)
}

// parts is a running node, in the order in which it was put together.
type parts struct {
	n       *nodeRole
	ident   cluster.Identity
	cluster *cluster.Cluster
	spawn   *spawn.Client
	maker   *standin.Maker
	rexec   *rexec.Server
	procs   *proctab.Node
	window  *window.Watcher
	space   *processSpace
	api     *api.Server

	machines *machine.Table
	netboot  *netboot.Service
	clock    *timekeeping
	machine  *machineView

	restart context.CancelCauseFunc // set by serve

	ready     chan struct{} // closed when the node serves for the first time
	readyOnce sync.Once

	mu     sync.Mutex // guards the order of fences; a leaf
	served bool       // the node served, or fenced what an earlier daemon left
}

func (n *nodeRole) assemble() (p *parts, err error) {
	p = &parts{n: n, ready: make(chan struct{})}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	name, err := nodeName(n.cfg)
	if err != nil {
		return nil, err
	}
	p.ident, err = cluster.ReadIdentity(n.cfg.StateDir)
	if err != nil {
		return nil, err
	}
	addr := p.ident.Addr
	if n.cfg.Addr != "" {
		if addr, err = ownAddr("", n.cfg); err != nil {
			return nil, err
		}
	}
	others := otherAddrs(n.cfg, addr)
	p.machine = &machineView{cfg: n.cfg, addrs: append([]string{addr}, others...), machine: n.machine, log: n.log}
	p.cluster, err = cluster.New(cluster.Config{
		Dir: n.cfg.StateDir, RunDir: runDir, HooksDir: n.cfg.HooksDir, MaxVoters: n.cfg.MaxVoters, Log: n.log,
		Machine:   p.machine.encoded,
		Info:      member.Info{Name: name, Addr: addr, Others: others, Capable: n.cfg.Capable, Classes: n.cfg.Classes},
		OnServing: p.onServing,
		OnGone: func(node id.Node, cause string) {
			p.rexec.PeerDown(node, cause)
			p.space.nodeDown(node)
		},
		InitWork: []func(context.Context){func(ctx context.Context) { p.netboot.Work(ctx) }},
	})
	if err != nil {
		return nil, err
	}
	p.machines = machine.NewTable(p.cluster.Registry(), machine.Of(p.cluster))
	p.netboot = n.newNetboot(p.cluster, p.machines)
	self := p.cluster.Self()
	if p.clock, err = n.openTimekeeping(self, addr); err != nil {
		return nil, err
	}
	if p.window, err = window.Start(n.log, self); err != nil {
		return nil, err
	}
	t := p.cluster.Transport()
	p.spawn = spawn.NewClient(filepath.Join(runDir, keeper.SpawnSocket))
	p.maker, err = standin.New(standin.Config{Spawn: p.spawn, Exited: n.exited, LocalView: spawn.LocalViewEnv, Log: n.log})
	if err != nil {
		return nil, err
	}
	where := &places{self: self, maker: p.maker, roles: new(roles)}
	p.rexec, err = rexec.NewServer(rexec.Config{
		Node: self, Peers: opener{p.cluster}, Spawn: p.spawn, Places: p.maker, Moved: where.moved, RunDir: runDir, Cgroup: os.Getenv(keeper.CgroupEnv),
		RestartSpawn: n.keep.RestartSpawn, Log: n.log, Fenced: "the node is starting",
	})
	if err != nil {
		return nil, err
	}
	n.setExec(p.rexec)
	t.HandleBulk(rexec.Bulk, func(ctx context.Context, from ics.Remote, header []byte, s ics.Stream) {
		p.rexec.HandleBulk(ctx, from.Node, header, s)
	})
	where.rexec = p.rexec
	if p.procs, err = proctab.NewNode("/proc", self, processPlaces{where}); err != nil {
		return nil, err
	}
	proctab.Register(t, p.procs)
	p.assembleAPI()
	if p.space, err = openProcessSpace(n.keep, n.log, p.cluster, p.api, where); err != nil {
		return nil, err
	}
	return p, nil
}

// onServing passes the fence on to what runs for others. A daemon that starts
// fences nothing yet: what an earlier one left may go on within its lease, see
// fenceLeftovers.
func (p *parts) onServing(s cluster.Serving) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case s.OK:
		p.rexec.Unfence()
		p.readyOnce.Do(func() { close(p.ready) })
	case p.served:
		p.rexec.Fence(s.Cause)
	}
	p.served = p.served || s.OK
}

// tellReady tells what waits for this node to serve.
func (p *parts) tellReady(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-p.ready:
	}
	p.n.machine.settled()
	if err := p.n.keep.Ready(); err != nil {
		p.n.log.Warn("logins start later", "op", "ready", "err", err)
	}
}

// fenceLeftovers ends what an earlier daemon ran for others, if this one gets no
// lease within the time for which that one's can have lasted.
func (p *parts) fenceLeftovers(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(p.cluster.NodeLease()):
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.served {
		p.rexec.Fence("the daemon was restarted and found no contact with the cluster")
		p.served = true
	}
}

// assembleAPI makes the server of the local socket.
func (p *parts) assembleAPI() {
	p.api = api.NewServer(p.n.log)
	nodes := processCluster{p.cluster}
	local := proctab.NewLocal(p.procs, nodes)
	local.Register(p.api)
	p.api.Handle(api.ExecRun, p.rexec.HandleAPI)
	c := &control.Control{
		Cluster: p.cluster, Strays: p.window.Strays, Time: p.clock.status, Machines: p.listMachines, Reports: p.reports,
		Loads: func(ctx context.Context) map[id.Node]int {
			loads := map[id.Node]int{}
			for _, l := range local.Loads(ctx, nodes.Nodes(), loadTimeout).Loads {
				if l.Error == "" {
					loads[l.Node] = l.Value
				}
			}
			return loads
		},
	}
	c.Register(p.api)
	(&machine.Control{Table: p.machines}).Register(p.api)
}

// serve runs the parts until ctx ends; then the node leaves in order.
func (p *parts) serve(ctx context.Context) error {
	l, err := p.n.keep.Listen("ics", "tcp", p.n.cfg.Listen)
	if err != nil {
		return fmt.Errorf("internode port: %w", err)
	}
	run, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	p.restart = stop
	var wg sync.WaitGroup
	defer wg.Wait()
	defer p.api.Close()
	defer stop(nil)
	wg.Go(func() {
		if err := p.api.Serve(p.n.local); err != nil {
			stop(err)
		}
	})
	wg.Go(func() { p.watchIdentity(run) })
	wg.Go(func() { p.netboot.Mirror(run) })
	wg.Go(func() { p.netboot.Build(run) })
	wg.Go(func() { p.clock.follow(run, p.cluster.Members(), p.cluster.Serving()) })
	wg.Go(func() { p.fenceLeftovers(run) })
	wg.Go(func() { p.tellReady(run) })
	wg.Go(func() { p.watchLinks(run) })
	wg.Go(func() {
		if err := p.space.serve(run); err != nil {
			stop(err)
		}
	})
	orders := control.Orders{Cluster: p.cluster, Log: p.n.log, End: p.end}
	wg.Go(func() { orders.Run(run) })
	wg.Go(func() {
		select {
		case <-run.Done():
			return
		case <-ctx.Done():
		}
		leave, cancel := context.WithTimeout(run, leaveTimeout)
		defer cancel()
		if err := p.cluster.Leave(leave, "orderly shutdown"); err != nil {
			p.n.log.Warn("leave", "err", err)
		}
		stop(context.Cause(ctx))
	})
	return p.cluster.Run(run, l)
}

// watchIdentity starts the daemon anew when this machine was made the node of
// another cluster (`ssi cluster init --force`).
func (p *parts) watchIdentity(ctx context.Context) {
	tick := time.NewTicker(identityCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// While the files are exchanged there are none.
		now, err := cluster.ReadIdentity(p.n.cfg.StateDir)
		if err == nil && (now.ID != p.ident.ID || now.Node != p.ident.Node) {
			if err := p.n.keep.RestartSpawn(); err != nil { // its filter is of the old number
				p.n.log.Error("restart of the spawn role", "op", "spawn", "err", err)
			}
			p.restart(fmt.Errorf("%w: this machine was made node %d of cluster %q", cluster.ErrRestart, now.Node, now.Name))
			return
		}
	}
}

// end has PID 1 end this machine; PID 1 asks this process to leave once the users'
// processes have ended.
func (p *parts) end(action, cause string) {
	p.n.log.Warn("this machine ends", "action", action, "cause", cause)
	ending := keeper.PowerOff
	switch action {
	case api.ActionHalt:
		ending = keeper.Halt
	case api.ActionReboot:
		ending = keeper.Reboot
	}
	if err := p.n.keep.Shutdown(ending); err != nil {
		p.n.log.Error("end the machine", "err", err)
	}
}

// close undoes assemble, the last part first.
func (p *parts) close() {
	if p.space != nil {
		p.space.close()
	}
	if p.procs != nil {
		_ = p.procs.Close() // only reads
	}
	if p.rexec != nil {
		p.rexec.Close()
	}
	if p.maker != nil {
		p.maker.Close()
	}
	if p.spawn != nil {
		_ = p.spawn.Close() // stateless
	}
	if p.window != nil {
		p.window.Stop()
	}
	p.clock.close()
	if p.cluster != nil {
		_ = p.cluster.Transport().Close() // always nil; closed already if the cluster ran
	}
}
