package netconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ssi/internal/config"
)

const (
	checkEvery = 30 * time.Second // even if the kernel told of no change
	// Changes are looked at together.
	gather = 20 * time.Millisecond
	// The same plan as before, because it failed or someone undid it, is carried
	// out again after this time, which doubles each time.
	minAgain = 40 * time.Millisecond
	maxAgain = 10 * time.Second
	// After so long the same plan counts as a new one.
	forgetAfter = time.Minute
)

// Options are what a Manager is made of.
type Options struct {
	Interfaces    []config.Interface
	Interconnects []string // config.Config.Interconnects: names or MAC addresses, the preferred first
	Host          string   // told to DHCP servers; "" tells none
	ResolvConf    string   // path, usually /etc/resolv.conf; "" writes none

	// InUse returns the addresses over which the nodes talk now; nil: none.
	InUse func() []netip.Addr
	// LoadModule loads a kernel module (bonding, with max_bonds=0, and 8021q)
	// before it is needed; nil leaves that to the kernel.
	LoadModule func(name string) error
	Log        *slog.Logger // nil logs nothing
}

// Manager keeps the network as configured.
type Manager struct {
	o    Options
	log  *slog.Logger
	k    *kernel
	news *nl.NetlinkSocket
	wake chan struct{} // holds one

	// Of the loop.
	last    attempt
	clients map[string]*running // by link
	resolv  string              // what is wrong with resolv.conf; last logged

	mu      sync.Mutex
	state   State
	plan    Plan
	leases  map[string]Lease   // by link
	asked   map[string]string  // link -> what its DHCP client last failed with
	failed  map[string]string  // link -> the operation that failed
	since   map[string]waiting // label -> what it waits for
	changed chan struct{}      // closed and replaced with every look at the network
}

// attempt is the last plan that was carried out.
type attempt struct {
	ops   string
	at    time.Time
	again time.Duration // the same one may follow after this
}

// running is the DHCP client of a link.
type running struct {
	*client
	index   int
	carrier bool
	cancel  context.CancelFunc
	done    chan struct{}
}

// New prepares a Manager and changes nothing yet. Errors are those of opening
// netlink sockets.
func New(o Options) (*Manager, error) {
	k, err := openKernel(o.LoadModule)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	news, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		k.close()
		return nil, fmt.Errorf("network: watch the interfaces: %w", err)
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Manager{
		o: o, log: log, k: k, news: news, wake: make(chan struct{}, 1),
		leases: map[string]Lease{}, asked: map[string]string{}, failed: map[string]string{},
		since: map[string]waiting{}, clients: map[string]*running{}, changed: make(chan struct{}),
	}, nil
}

// Run configures the network and keeps it so until the context ends. It leaves
// addresses and leases as they are: a node daemon that is started anew goes on
// with them. It may be called once.
func (m *Manager) Run(ctx context.Context) {
	var watcher sync.WaitGroup
	watcher.Go(m.watch)
	defer watcher.Wait()
	defer m.news.Close()
	defer m.stopClients(nil)
	for ctx.Err() == nil {
		timer := time.NewTimer(m.look(ctx))
		select {
		case <-ctx.Done():
		case <-m.wake:
			timer.Reset(gather)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Release gives the leases back and removes their addresses: for a machine that
// goes away. Run must have returned. It takes at most a second per lease.
func (m *Manager) Release() error {
	var errs []error
	for _, link := range slices.Sorted(maps.Keys(m.leases)) {
		lease := m.leases[link]
		if !lease.Valid() || lease.left(time.Now()) < 0 {
			continue
		}
		errs = append(errs, (&client{link: link}).release(lease), m.k.apply(Op{Verb: RemoveAddress, Link: link, Addr: Addr{Prefix: lease.Addr}}))
		delete(m.leases, link)
	}
	return errors.Join(errs...)
}

// Close frees what New opened. Run must have returned.
func (m *Manager) Close() {
	m.news.Close()
	m.k.close()
}

// watch wakes the loop with every change that the kernel tells of.
func (m *Manager) watch() {
	for {
		_, _, err := m.news.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return // closed; the loop still looks by itself
		}
		m.poke()
	}
}

func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// look compares, acts and returns when to look again at the latest.
func (m *Manager) look(ctx context.Context) time.Duration {
	state, err := m.k.state()
	if err != nil {
		m.log.Error("the network cannot be read", "err", err)
		return maxAgain
	}
	in := Input{Interfaces: m.o.Interfaces, Now: time.Now(), State: state}
	if m.o.InUse != nil {
		in.InUse = m.o.InUse()
	}
	m.mu.Lock()
	in.Leases = maps.Clone(m.leases)
	m.mu.Unlock()
	plan := MakePlan(in)
	failed, next := m.failed, checkEvery
	if hold := m.hold(plan.Ops, in.Now); hold > 0 {
		next = hold
	} else if failed = m.carryOut(plan.Ops); len(plan.Ops) > 0 {
		next = max(m.last.again, minAgain)
		if len(failed) > 0 {
			next = max(next, time.Second)
		}
		if state, err = m.k.state(); err != nil {
			m.log.Error("the network cannot be read", "err", err)
			return maxAgain
		}
	}
	m.clientsFor(ctx, plan.DHCP, state)
	m.writeResolv(plan, in.Leases)

	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.plan, m.failed = state, plan, failed
	m.follow(time.Now())
	close(m.changed)
	m.changed = make(chan struct{})
	return next
}

// hold is how long a plan must wait because it is the same as before.
func (m *Manager) hold(ops []Op, now time.Time) time.Duration {
	var text strings.Builder
	for _, op := range ops {
		if op.Verb != AddAddress || op.Addr.Lifetime == 0 { // a lease that is renewed is no repetition
			text.WriteString(op.String() + "\n")
		}
	}
	if text.Len() == 0 {
		return 0
	}
	again := minAgain
	if since := now.Sub(m.last.at); m.last.ops == text.String() && since < forgetAfter {
		if since < m.last.again {
			return m.last.again - since
		}
		again = min(2*m.last.again, maxAgain)
	}
	m.last = attempt{ops: text.String(), at: now, again: again}
	return 0
}

// carryOut applies operations. What builds on one that failed is left for the
// next time.
func (m *Manager) carryOut(ops []Op) map[string]string {
	failed := map[string]string{}
	broken := map[string]bool{}
	for _, op := range ops {
		if broken[op.Link] || broken[op.To] && op.To != "" {
			continue
		}
		if err := m.k.apply(op); err != nil {
			m.log.Warn("network", "failed", err)
			failed[op.Link] = err.Error()
			switch op.Verb {
			case Rename, AddBond, AddVLAN, SetBond, Delete, Up, Down:
				broken[op.Link] = true
			}
			continue
		}
		m.log.Info("network", "did", op.String())
	}
	return failed
}

// clientsFor starts the DHCP clients of links and stops those of others. A
// client starts when its link has a carrier first.
func (m *Manager) clientsFor(ctx context.Context, links []string, state State) {
	m.stopClients(func(r *running) bool {
		l := state.link(r.link)
		return l != nil && l.Index == r.index && slices.Contains(links, r.link)
	})
	for _, name := range links {
		l := state.link(name)
		if l == nil {
			continue
		}
		if r := m.clients[name]; r != nil {
			if l.Carrier && !r.carrier {
				select {
				case r.nudge <- struct{}{}:
				default:
				}
			}
			r.carrier = l.Carrier
			continue
		}
		if l.Up && l.Carrier {
			m.startClient(ctx, *l)
		}
	}
}

func (m *Manager) startClient(ctx context.Context, l Link) {
	ifc, err := net.InterfaceByName(l.Name)
	if err != nil || len(ifc.HardwareAddr) != 6 {
		m.dhcpFailed(l.Name, fmt.Errorf("DHCP needs an Ethernet address, and %s has none", l.Name))
		return
	}
	c := &client{link: l.Name, mac: ifc.HardwareAddr, host: m.o.Host, nudge: make(chan struct{}, 1)}
	c.leased = func(lease Lease) { m.leased(l.Name, lease) }
	c.failed = func(err error) { m.dhcpFailed(l.Name, err) }
	c.second = m.secondServer(l.Name)
	for _, a := range l.Addrs {
		if a.Prefix.Addr().Is4() && a.Lifetime > 0 {
			c.want = a.Prefix.Addr().AsSlice() // of the daemon before this one
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &running{client: c, index: l.Index, carrier: true, cancel: cancel, done: make(chan struct{})}
	m.clients[l.Name] = r
	go func() {
		defer close(r.done)
		c.run(ctx)
	}()
}

// stopClients stops those that keep does not want, or all.
func (m *Manager) stopClients(keep func(*running) bool) {
	for name, r := range m.clients {
		if keep != nil && keep(r) {
			continue
		}
		r.cancel()
		<-r.done
		delete(m.clients, name)
		if keep == nil {
			continue // at the end leases stay
		}
		m.mu.Lock()
		delete(m.leases, name)
		delete(m.asked, name)
		m.mu.Unlock()
	}
}

func (m *Manager) leased(link string, lease Lease) {
	m.mu.Lock()
	before := m.leases[link]
	m.leases[link] = lease
	delete(m.asked, link)
	m.mu.Unlock()
	if lease.Valid() && before.Addr != lease.Addr {
		m.log.Info("network", "link", link, "lease", lease.Addr.String(), "server", lease.Server.String(), "for", lease.Length)
	}
	m.poke()
}

// secondServer logs that another DHCP server answers on a link, once for each.
func (m *Manager) secondServer(link string) func(other, chosen netip.Addr) {
	told := map[netip.Addr]bool{}
	return func(other, chosen netip.Addr) {
		if told[other] || len(told) >= maxServers {
			return
		}
		told[other] = true
		m.log.Warn("network", "link", link, "dhcp", fmt.Sprintf("another DHCP server, %s, answers beside %s, whose address this machine takes: turn one of them off", other, chosen))
	}
}

// dhcpFailed notes what a client failed with; nil: it begins to ask.
func (m *Manager) dhcpFailed(link string, err error) {
	m.mu.Lock()
	if err == nil {
		delete(m.asked, link)
		m.mu.Unlock()
		m.poke()
		return
	}
	again := m.asked[link] == err.Error()
	m.asked[link] = err.Error()
	m.mu.Unlock()
	if !again {
		m.log.Warn("network", "link", link, "dhcp", err)
	}
	m.poke()
}

func (m *Manager) writeResolv(plan Plan, leases map[string]Lease) {
	text := resolvText(resolvers(m.o.Interfaces, plan.Bound, leases))
	if text == "" || m.o.ResolvConf == "" {
		return
	}
	problem := ""
	if err := writeResolv(m.o.ResolvConf, text); err != nil {
		problem = err.Error()
	}
	if problem != "" && problem != m.resolv {
		m.log.Warn("network", "problem", problem)
	}
	m.resolv = problem
}
