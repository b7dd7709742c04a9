package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"ssi/cluster"
	"ssi/cluster/member"
	"ssi/cluster/ntp"
	"ssi/internal/api"
	"ssi/internal/id"
	"ssi/netboot"
)

const (
	// clockMark is there once the clock was set since this machine was switched on:
	// from then on it is not simply stepped.
	clockMark = runDir + "/clock-was-set"
	// setClockTime is how long a machine waits for the right time before it asks for
	// admission: two rounds of questions.
	setClockTime = 5 * time.Second
	// driftDir is where the drift of the clock is kept, below the state directory.
	driftDir = "ntp"
)

// timekeeping has the clock of this machine follow the one of the cluster.
type timekeeping struct {
	conf ntp.Config // as the service is opened
	mark string     // the file clockMark
	port uint16     // of NTP on the node that holds init
	self id.Node
	log  *slog.Logger

	allowed atomic.Pointer[timeClients]

	mu      sync.Mutex // guards service; a leaf
	service *ntp.Service
}

// timeClients is whom this node tells the time while it holds init: the other
// nodes, and machines that boot, which are no nodes yet.
type timeClients struct {
	nodes  map[netip.Addr]bool
	booted []netip.Prefix
}

func (c *timeClients) allow(a netip.Addr) bool {
	if a = a.Unmap(); c.nodes[a] {
		return true
	}
	for _, p := range c.booted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// timeConfig is what all NTP services of this machine have in common. Where
// another init cares for the machine, its clock and port 123 are not ours.
func (n *nodeRole) timeConfig() ntp.Config {
	c := ntp.Config{Servers: n.cfg.Time.Servers, Log: n.log}
	c.Discipline, c.Why = ntp.MayDiscipline(ntp.ModeAuto, ownsMachine(), os.DirFS("/proc"))
	_, err := os.Stat(clockMark)
	c.Boot = errors.Is(err, fs.ErrNotExist)
	return c
}

// setClock sets the clock by that of the node that booted this machine. It is
// tried for a short time only: a clock that is wrong is set later too, by then
// under the eyes of programs.
func (n *nodeRole) setClock(ctx context.Context, bootedBy string) {
	c := n.timeConfig()
	if !c.Discipline || !c.Boot {
		return
	}
	err := setClock(ctx, c, bootedBy, clockMark, ntp.Port)
	if err != nil && ctx.Err() == nil {
		n.log.Warn("the clock was not set", "op", "time", "by", bootedBy, "err", err)
	}
}

func setClock(ctx context.Context, c ntp.Config, bootedBy, mark string, port uint16) error {
	u, err := url.Parse(bootedBy)
	if err != nil {
		return err
	}
	host, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return err
	}
	s, err := ntp.Open(c)
	if err != nil {
		return err
	}
	s.Follow(ntp.Role{Addr: netip.AddrPortFrom(host, port)})
	select {
	case <-ctx.Done():
	case <-time.After(setClockTime):
		err = errors.New("it does not tell the time")
	case <-s.Synchronised():
		err = writeMark(mark)
	}
	return errors.Join(err, s.Close())
}

// writeMark needs no fsync: the file is to vanish with the machine's power.
func writeMark(path string) error { return os.WriteFile(path, nil, 0o644) }

// openTimekeeping starts the service of node self, which others reach at addr.
func (n *nodeRole) openTimekeeping(self id.Node, addr string) (*timekeeping, error) {
	k := &timekeeping{conf: n.timeConfig(), mark: clockMark, port: ntp.Port, self: self, log: n.log}
	clients := &timeClients{}
	if own, ok := hostOf(addr); ok && ownsMachine() {
		k.conf.Serve = n.cfg.Time.Serve
		k.conf.Dir = filepath.Join(n.cfg.StateDir, driftDir)
		k.conf.Listen, clients.booted = n.timeNetworks(own)
	}
	k.allowed.Store(clients)
	if err := k.open(); err != nil {
		return nil, err
	}
	return k, nil
}

// timeNetworks is where the time is served, and the networks of machines that boot.
func (n *nodeRole) timeNetworks(own netip.Addr) (listen []netip.AddrPort, booted []netip.Prefix) {
	add := func(_ string, p netip.Prefix, err error) {
		if err != nil {
			n.log.Warn("machines that boot are not told the time", "op", "time", "err", err)
			return
		}
		booted = append(booted, p.Masked())
		if p.Addr() != own {
			listen = append(listen, netip.AddrPortFrom(p.Addr(), ntp.Port))
		}
	}
	listen = []netip.AddrPort{netip.AddrPortFrom(own, ntp.Port)}
	add(netboot.InterfaceOf(own))
	if n.cfg.Netboot.Enable && n.cfg.Netboot.Interface != "" {
		add(n.bootAddress(n.cfg.Netboot.Interface))
	}
	return listen, booted
}

func (k *timekeeping) open() error {
	k.conf.Allow = func(a netip.Addr) bool { return k.allowed.Load().allow(a) }
	if k.conf.Dir != "" {
		if err := os.MkdirAll(k.conf.Dir, 0o755); err != nil {
			return err
		}
	}
	s, err := ntp.Open(k.conf)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.service = s
	return nil
}

func (k *timekeeping) current() *ntp.Service {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.service
}

// watched is a cluster.Published.
type watched[T any] interface{ Get() (T, <-chan struct{}) }

// follow follows the node that holds init until ctx ends. While this node is
// fenced, what it knows of that may be old: it goes on as before.
func (k *timekeeping) follow(ctx context.Context, members watched[*member.View], serving watched[cluster.Serving]) {
	synced := k.current().Synchronised()
	for {
		view, viewChanged := members.Get()
		now, servingChanged := serving.Get()
		k.take(view)
		if now.OK {
			role := k.role(view)
			if role.Init && len(k.conf.Servers) == 0 && k.conf.Boot {
				// The others follow this clock from now on. It must not be stepped when
				// this node follows another one some day.
				synced = nil
				if err := k.wasSet(); err != nil {
					k.log.Warn("clock", "op", "time", "err", err)
				}
			}
			k.current().Follow(role)
		}
		select {
		case <-ctx.Done():
			return
		case <-viewChanged:
		case <-servingChanged:
		case <-synced:
			synced = nil
			if !k.conf.Discipline {
				continue
			}
			if err := writeMark(k.mark); err != nil {
				k.log.Warn("clock", "op", "time", "err", err)
			}
		}
	}
}

// wasSet opens the service anew, as one of a clock that was set.
func (k *timekeeping) wasSet() error {
	k.conf.Boot = false
	if !k.conf.Discipline {
		return nil
	}
	return errors.Join(k.current().Close(), k.open(), writeMark(k.mark))
}

// take notes who may ask for the time.
func (k *timekeeping) take(v *member.View) {
	c := &timeClients{nodes: make(map[netip.Addr]bool, len(v.Nodes)), booted: k.allowed.Load().booted}
	for _, n := range v.Nodes {
		if a, ok := hostOf(n.Info.Addr); ok {
			c.nodes[a] = true
		}
	}
	k.allowed.Store(c)
}

// role is what this node does for the time. Nobody is to be asked while the
// address of the node that holds init is not known.
func (k *timekeeping) role(v *member.View) ntp.Role {
	if v.Init == k.self {
		return ntp.Role{Init: true}
	}
	if a, ok := hostOf(v.Get(v.Init).Info.Addr); ok {
		return ntp.Role{Addr: netip.AddrPortFrom(a, k.port)}
	}
	return ntp.Role{}
}

// hostOf is the address of HOST:PORT.
func hostOf(addr string) (netip.Addr, bool) {
	a, err := netip.ParseAddrPort(addr)
	return a.Addr().Unmap(), err == nil
}

// status is for `cluster -v`.
func (k *timekeeping) status() api.TimeStatus {
	s := k.current().Status()
	return api.TimeStatus{
		Source: s.Source, Refused: s.Refused, Stratum: int(s.Stratum),
		Offset: s.Offset, Delay: s.Delay, Jitter: s.Jitter, Dispersion: s.Dispersion, Frequency: s.Frequency, Updated: s.Updated,
		Disciplined: s.Disciplined, Why: s.Why, Serving: s.Serving, ServeError: s.ServeError,
	}
}

// close ends it, after follow. The clock keeps its rate.
func (k *timekeeping) close() {
	if k == nil {
		return
	}
	if err := k.current().Close(); err != nil {
		k.log.Warn("the drift of the clock is not saved", "op", "time", "err", err)
	}
}
