package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/proc"
	"ssi/internal/vm"
)

const (
	vmPoll    = 300 * time.Millisecond // a question costs an emulated processor about 50 ms
	foundTime = 2 * time.Minute        // for the first node to be UP and to boot others
	vmBoots   = 3                      // machines that boot at once
	// serving succeeds on a node whose DHCP server (port 67, in hexadecimal 43) is
	// there: a machine that asks too early gives up for ever.
	serving = "busybox grep -q ':0043 ' /proc/net/udp"
	vmDir   = "vm" // in the directory of the lab: consoles, and what QEMU says
)

// vmNodes are the nodes of a lab that are machines.
//
// Lock order: guest.op, then the console of a shell, then vmNodes.mu.
type vmNodes struct {
	s     *supervisor
	net   *vm.Network
	boots chan struct{} // holds one value for each machine that boots

	mu     sync.Mutex
	guests map[id.Node]*guest
	faults *faults
}

// guest is one machine.
type guest struct {
	n     id.Node
	m     *vm.Machine
	shell *shell
	op    sync.Mutex // serialises start, crash, pause and resume

	// Guarded by vmNodes.mu.
	state State
	since time.Time
	boot  int
	cause string
}

func newMachines(s *supervisor) *vmNodes {
	return &vmNodes{s: s, guests: map[id.Node]*guest{}, faults: newFaults(), boots: make(chan struct{}, vmBoots)}
}

// build gives this process a /proc of its own PID namespace.
func (v *vmNodes) build() error {
	proc.DefaultSignals()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("lab: private mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("lab: mount /proc: %w", err)
	}
	dir := filepath.Join(dirOf(v.s.opts.Name), vmDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	var err error
	v.net, err = vm.New(dir, v.s.opts.Seed)
	return err
}

// bootAll starts the machines for the first time.
func (v *vmNodes) bootAll() {
	err := v.firstBoot(v.s.ctx)
	v.s.mu.Lock()
	v.s.bootErr = err
	v.s.mu.Unlock()
	if err != nil {
		v.s.log.Error("first start", "err", err)
	}
	close(v.s.booted)
}

func (v *vmNodes) firstBoot(ctx context.Context) error {
	first, err := v.newGuest(1)
	if err != nil {
		return err
	}
	if err := v.start(ctx, first); err != nil {
		return err
	}
	if err := v.found(ctx, first); err != nil {
		return err
	}
	errs := make([]error, v.s.opts.Nodes-1)
	var wg sync.WaitGroup
	for i := range errs {
		g, err := v.newGuest(id.Node(i + 2))
		if err == nil {
			err = v.expect(ctx, first, g)
		}
		if err != nil {
			errs[i] = err
			break
		}
		wg.Go(func() { errs[i] = v.start(ctx, g) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// found makes the cluster on the first machine and waits until it boots others.
func (v *vmNodes) found(ctx context.Context, first *guest) error {
	ctx, cancel := context.WithTimeout(ctx, foundTime)
	defer cancel()
	// The tokens that it prints are secret, and nobody needs them.
	command := commandLine([]string{"ssi", "cluster", "init", "--name", v.s.opts.Name, "--node", "1",
		"--addr", net.JoinHostPort(Addr(1), icsPort), "--profile", v.s.opts.Profile}) + " 2>&1 >/dev/null"
	out, status, err := first.shell.output(ctx, command)
	if err != nil {
		return err
	}
	if status != 0 {
		return errno.New(errno.Other, "cluster init", 1, "%s", strings.TrimSpace(out))
	}
	for {
		why, err := v.missing(ctx, first, []id.Node{1})
		if err == nil && why == "" && v.s.opts.Nodes > 1 {
			_, status, err = first.shell.output(ctx, serving)
		}
		if err != nil {
			return err
		}
		if why == "" && status == 0 {
			return nil
		}
		if err := pause(ctx); err != nil {
			return errno.New(errno.Timeout, "", 1, "it is not ready to boot others after %v; its last words: %s", foundTime, first.words())
		}
	}
}

// expect tells the cluster, by a node of it, that a machine will come.
func (v *vmNodes) expect(ctx context.Context, by, g *guest) error {
	out, status, err := by.shell.output(ctx, commandLine([]string{"ssi", "addnode", vmMAC(g.n), "--node", g.n.String()})+" 2>&1")
	if err != nil {
		return err
	}
	if status != 0 {
		return errno.New(errno.Other, "addnode", g.n, "%s", strings.TrimSpace(out))
	}
	return nil
}

// newGuest makes a machine, which is off.
func (v *vmNodes) newGuest(n id.Node) (*guest, error) {
	mac, err := net.ParseMAC(vmMAC(n))
	if err != nil {
		return nil, err
	}
	spec := vm.Spec{Name: Host(n), Memory: vmMemory, Boot: vm.BootNetwork, NICs: []vm.NIC{{Segment: vmSegment, MAC: mac}}}
	if n == 1 {
		spec.Boot, spec.Kernel, spec.Initrd = vm.BootKernel, v.s.opts.VM.Kernel, filepath.Join(dirOf(v.s.opts.Name), firstImage)
		spec.Disks = []vm.Disk{{Path: filepath.Join(dirOf(v.s.opts.Name), firstDisk)}}
		spec.Append = "console=ttyS0 rdinit=/sbin/ssi panic=-1 quiet loglevel=4 cryptomgr.notests ssi.console=shell"
	}
	m, err := v.net.Machine(spec)
	if err != nil {
		return nil, err
	}
	g := &guest{n: n, m: m, shell: newShell(n, m), state: Off, since: time.Now()}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.guests[n] = g
	return g, v.disturb()
}

// set changes the state of a machine.
func (v *vmNodes) set(g *guest, state State, cause string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	g.state, g.cause, g.since = state, cause, time.Now()
}

func (v *vmNodes) stateOf(g *guest) State {
	v.mu.Lock()
	defer v.mu.Unlock()
	return g.state
}

// start turns a machine on and waits for the shell on its console.
func (v *vmNodes) start(ctx context.Context, g *guest) error {
	g.op.Lock()
	defer g.op.Unlock()
	if state := v.stateOf(g); state != Off {
		return errno.New(errno.Exists, "start", g.n, "it is %s", state)
	}
	select {
	case v.boots <- struct{}{}:
		defer func() { <-v.boots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	release, err := g.shell.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	g.shell.offered, g.shell.ready = false, false
	if err := g.m.PowerOn(ctx); err != nil {
		return err
	}
	v.mu.Lock()
	g.state, g.cause, g.since = Starting, "", time.Now()
	g.boot++
	v.mu.Unlock()
	v.s.wg.Go(func() { v.watch(g) })
	if err := g.shell.open(ctx); err != nil {
		return errno.New(errno.Timeout, "start", g.n, "no shell on its console: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if g.state == Starting {
		g.state, g.since = On, time.Now()
	}
	return nil
}

// watch notes the end of a machine that is on. The next start comes after it.
func (v *vmNodes) watch(g *guest) {
	err := g.m.Wait(v.s.ctx)
	if v.s.ctx.Err() != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if g.state == Off || g.m.On() { // by crash, and perhaps on again
		return
	}
	g.state, g.since, g.cause = Off, time.Now(), "it switched itself off"
	if err != nil {
		g.cause = err.Error()
	}
}

// crash cuts the power of a machine.
func (v *vmNodes) crash(g *guest) error {
	g.op.Lock()
	defer g.op.Unlock()
	if v.stateOf(g) == Off {
		return errno.New(errno.Unavailable, opCrash, g.n, "it is off")
	}
	v.set(g, Off, "power cut")
	return g.m.Kill()
}

// freeze stops the processor of a machine or lets it go on.
func (v *vmNodes) freeze(ctx context.Context, g *guest, on bool) error {
	g.op.Lock()
	defer g.op.Unlock()
	want, next, op, do := On, Paused, opPause, g.m.Stop
	if !on {
		want, next, op, do = Paused, On, opResume, g.m.Cont
	}
	if state := v.stateOf(g); state != want {
		return errno.New(errno.Invalid, op, g.n, "it is %s", state)
	}
	if err := do(ctx); err != nil {
		return err
	}
	v.set(g, next, "")
	return nil
}

// add makes one more machine, which the cluster boots.
func (v *vmNodes) add(ctx context.Context) (id.Node, error) {
	select {
	case <-v.s.booted:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	on := v.on()
	if len(on) == 0 {
		return 0, errno.New(errno.Unavailable, opAdd, 0, "no node is on that could take another one in")
	}
	n := id.Node(len(v.all()) + 1)
	if int(n) > maxVMs {
		return 0, errno.New(errno.Full, opAdd, 0, "the lab has %d machines; more are not possible", maxVMs)
	}
	g, err := v.newGuest(n)
	if err == nil {
		err = v.expect(ctx, on[0], g)
	}
	if err == nil {
		err = v.start(ctx, g)
	}
	return n, err
}

// all lists the machines by number.
func (v *vmNodes) all() []*guest {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := make([]*guest, 0, len(v.guests))
	for _, g := range v.guests {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *guest) int { return int(a.n) - int(b.n) })
	return list
}

// on lists those that take commands.
func (v *vmNodes) on() []*guest {
	return slices.DeleteFunc(v.all(), func(g *guest) bool { return v.stateOf(g) != On })
}

// waitUp returns when the first start is over and the lowest node that is on sees
// every node that is on as UP.
func (v *vmNodes) waitUp(ctx context.Context) error {
	late := func(what string) error {
		return errno.New(errno.Timeout, "lab", 0, "not all nodes came UP: %s; see `ssi lab logs`", what)
	}
	select {
	case <-v.s.booted:
	case <-ctx.Done():
		return late("machines still boot")
	}
	v.s.mu.Lock()
	err := v.s.bootErr
	v.s.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		on := v.on()
		if len(on) == 0 {
			return errno.New(errno.Unavailable, "lab", 0, "no node is on")
		}
		var want []id.Node
		for _, g := range on {
			want = append(want, g.n)
		}
		why, err := v.missing(ctx, on[0], want)
		switch {
		case err == nil && why == "":
			return nil
		case v.s.ctx.Err() != nil:
			return context.Cause(v.s.ctx)
		case err != nil && ctx.Err() == nil:
			return err
		}
		if pause(ctx) != nil {
			return late(why)
		}
	}
}

// missing says which nodes one of them does not see UP.
func (v *vmNodes) missing(ctx context.Context, by *guest, want []id.Node) (string, error) {
	var missing []string
	for _, n := range want {
		out, _, err := by.shell.output(ctx, "ssi clusternode_getstate "+n.String()+" 2>&1")
		if err != nil {
			return "", err
		}
		if state := strings.TrimSpace(out); !slices.Contains(strings.Fields(state), "UP") {
			missing = append(missing, fmt.Sprintf("node %d: %s", n, state))
		}
	}
	return strings.Join(missing, ", "), nil
}

// words is the end of what a machine said, on one line.
func (g *guest) words() string {
	return strings.ReplaceAll(g.m.Console().Tail(3), "\n", " | ")
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(vmPoll):
		return nil
	}
}
