package netboot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"ssi/cluster/registry"
	"ssi/internal/api"
	"ssi/internal/config"
	"ssi/internal/id"
	"ssi/netboot/dhcp"
	"ssi/netboot/httpboot"
	"ssi/netboot/initramfs"
	"ssi/netboot/loader"
	"ssi/netboot/machine"
	"ssi/netboot/ra"
	"ssi/netboot/tftp"
)

const (
	firstPause, lastPause = time.Second, 30 * time.Second // between tries to serve
	loadTime              = 10 * time.Second              // to load the leases
	approveEvery          = time.Second                   // of machines that wait, if all are approved
	maxGuests             = 64                            // addresses for machines that may not boot
)

// Config is what the service of a node needs.
type Config struct {
	Settings config.Netboot // of this node; without Enable those of the cluster count
	Dir      string         // where the boot files are kept
	Root     string         // where kernel, modules and loaders are installed; "" is "/"
	// Make calls MakeFiles for this node's settings and a hardware class, in another
	// process: it takes long, and memory that the daemon would not give back.
	Make func(ctx context.Context, class string) error
	// Address is the interface of this machine to serve on, and its address there;
	// name is the configured interface, "" for that of the cluster.
	Address  func(name string) (ifname string, addr netip.Prefix, err error)
	Registry Registry
	Watch    func(prefix string, after uint64) (*registry.Watch, error)
	Table    *machine.Table
	Alarm    func(text string) // of what looks like an attack; must not wait
	// Calm waits, for a limited time, until no more machines are joining; nil does not.
	Calm    func(ctx context.Context)
	Self    id.Node
	Capable bool // this node may hold init
	Log     *slog.Logger
}

// Service boots other machines.
type Service struct {
	Config
	log       *slog.Logger
	table     *machine.Table
	admission *machine.Admission
	addresses *addresses
	shelf     *loader.Shelf
	stock     *stock
	builds    *builds
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
}

// New makes the service; it does not start anything.
func New(c Config) *Service {
	if c.Root == "" {
		c.Root = "/"
	}
	s := &Service{Config: c, log: c.Log, table: c.Table, shelf: new(loader.Shelf),
		addresses: &addresses{neighbours: machine.KernelNeighbours{}, of: map[netip.Addr]machine.MAC{}},
		stock:     &stock{dir: c.Dir, root: c.Root}, builds: newBuilds(c.Make), dial: (&net.Dialer{Timeout: dialTime}).DialContext}
	s.admission = machine.NewAdmission(c.Table, machine.KernelNeighbours{}, c.Log, c.Alarm)
	return s
}

// settings are those of this node, or those of the node that began to boot
// machines, on the interface of the cluster. Without any, machines are not booted.
func (s *Service) settings() (config.Netboot, bool, error) {
	if s.Settings.Enable {
		return s.Settings, true, nil
	}
	shared, _, err := readShared(s.Registry.Stale())
	if err != nil || shared == nil {
		return config.Netboot{}, false, err
	}
	c := shared.Settings
	c.Interface = ""
	return c, c.Enable, nil
}

// Build makes the boot files that Work asks for, until ctx ends. It goes on while
// another node holds init.
func (s *Service) Build(ctx context.Context) { s.builds.run(ctx) }

// Work boots machines while this node holds init: until ctx ends. What fails is
// tried again, with longer and longer pauses.
func (s *Service) Work(ctx context.Context) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil { // there is nothing to do here
			pause = firstPause
		} else {
			s.log.Error("machines cannot be booted now", "op", "netboot", "err", err, "again_in", pause)
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// serve boots machines until ctx ends or something fails.
func (s *Service) serve(ctx context.Context) error {
	settings, ok, err := s.settings()
	if err != nil || !ok {
		return err
	}
	ifname, own, err := s.Address(settings.Interface)
	if err != nil {
		return err
	}
	t := &term{Service: s, settings: settings, server: netip.AddrPortFrom(own.Addr(), uint16(settings.HTTPPort)), changed: make(chan error, 1)}
	if err := t.fill(ctx); err != nil {
		return fmt.Errorf("boot files: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	start := func(what string, serve func() (wait func() error, stop func(), err error)) {
		if err != nil {
			return
		}
		wait, stop, failed := serve()
		if failed != nil {
			err = fmt.Errorf("%s: %w", what, failed)
			return
		}
		g.Go(func() error {
			defer stop()
			if err := wait(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	untilDone := func() error { <-ctx.Done(); return nil }
	start("http", func() (func() error, func(), error) {
		l, err := httpboot.Listen(t.server)
		if err != nil {
			return nil, nil, err
		}
		h := httpboot.New(l, httpboot.Config{Files: s.shelf, Dynamic: t.page, Log: t.httpDone, Trouble: s.log})
		return untilDone, func() { _ = h.Close() }, nil
	})
	start("tftp", func() (func() error, func(), error) {
		c, err := tftp.Listen(netip.AddrPortFrom(own.Addr(), tftp.Port))
		if err != nil {
			return nil, nil, err
		}
		f, err := tftp.New(c, tftp.Config{Files: s.shelf, Dynamic: t.tftpFile, Log: t.tftpDone})
		if err != nil {
			return nil, nil, err
		}
		return untilDone, func() { _ = f.Close() }, nil
	})
	start("router advertisements", func() (func() error, func(), error) {
		r, err := ra.Listen(ctx, ifname)
		if err != nil {
			return nil, nil, err
		}
		failed := func(err error) { s.log.Warn("answer to a router solicitation", "op", "ra", "err", err) }
		return func() error { return r.Serve(ctx, failed) }, func() { _ = r.Close() }, nil
	})
	if settings.Mode != config.ModeOff {
		start("dhcp", func() (func() error, func(), error) { return t.dhcp(ctx, ifname, own) })
	}
	if err == nil { // only now: the others fetch at once what they are told of
		err = t.publish(ctx)
	}
	if err == nil {
		g.Go(func() error { s.admission.Run(ctx); return nil })
		g.Go(func() error {
			select {
			case <-ctx.Done():
				return nil
			case err := <-t.changed: // they are all looked at again
				t.builds.forget()
				return fmt.Errorf("boot files: %w", err)
			}
		})
		g.Go(func() error {
			t.unifyLater()
			t.followClasses(ctx)
			return nil
		})
		if settings.Unknown == config.UnknownApprove {
			g.Go(func() error { s.approve(ctx); return nil })
		}
		s.log.Info("booting machines", "op", "netboot", "interface", ifname, "address", own, "mode", settings.Mode, "http", t.server)
	} else {
		cancel()
	}
	return errors.Join(err, g.Wait())
}

// fill makes or checks the boot files and puts them on the shelf.
func (t *term) fill(ctx context.Context) error {
	own := t.Settings.Enable && t.stock.installed(t.settings)
	t.makes = own && !t.stock.given()
	if own {
		if err := t.builds.ask(ctx, ""); err != nil {
			return err
		}
		if shared, _, err := readShared(t.Registry.Stale()); err == nil && shared != nil {
			t.stock.known.expect(shared)
		}
	} else if err := t.fetch(ctx); err != nil {
		return err
	}
	entries, err := t.stock.collect()
	if err != nil {
		return err
	}
	k, err := initramfs.KernelImage(t.stock.path(kernelName))
	if err != nil {
		return err
	}
	t.boot = loader.Boot{Server: t.server, Kernel: kernelName, Initramfs: initramfsName, Script: scriptName, BootIF: true, Cmdline: append(t.cmdline(), params(t.settings.Cmdline)...)}
	t.entries, t.release = entries, k.Version
	t.addClasses()
	t.unify = func() error {
		if err := t.stock.unified(entries, t.boot, k.Version); err != nil {
			return err
		}
		return t.put(entries)
	}
	if err := t.put(entries); err != nil {
		return err
	}
	if t.loaders().EFI64 == "" { // firmware that is told of nothing gives up
		if err := t.unify(); err != nil {
			return err
		}
		t.unify = nil
	}
	return nil
}

// publish tells the other nodes which boot files there are: not the unified kernel
// image, which names this server.
func (t *term) publish(ctx context.Context) error {
	entries := maps.Clone(t.entries)
	delete(entries, ukiName)
	return t.share(ctx, Shared{Settings: t.settings, Server: t.server.String(), Release: t.release, Files: listFiles(entries)})
}

func (t *term) put(entries map[string]loader.Entry) error {
	tree, err := loader.NewTree(entries)
	if err == nil {
		t.shelf.Put(tree)
	}
	return err
}

// unifyLater makes the unified kernel image while this node serves already: that
// takes seconds of a slow processor, and there is another loader until then.
func (t *term) unifyLater() {
	if t.unify == nil {
		return
	}
	if err := t.unify(); err != nil {
		t.log.Error("UEFI boots by iPXE only", "op", "netboot", "err", err)
	}
}

// share tells the other nodes. The settings stay those of the node that has them
// in its file: Work has made them fit to this machine.
func (t *term) share(ctx context.Context, now Shared) error {
	if old, _, err := readShared(t.Registry.Stale()); err == nil && old != nil && !t.Settings.Enable {
		now.Settings = old.Settings
	}
	value, err := json.Marshal(now)
	if err != nil {
		return err
	}
	_, err = t.Registry.Txn(ctx, true, nil, registry.PutOp(keyShared, value, 0))
	return err
}

// dhcp makes the DHCP server.
func (t *term) dhcp(ctx context.Context, ifname string, own netip.Prefix) (wait func() error, stop func(), err error) {
	c := dhcp.Config{Mode: dhcp.Proxy, Interface: ifname, Server: own.Addr(), Machines: t,
		Report: func(e dhcp.Event) { t.log.Warn("dhcp", "op", "dhcp", "what", e.String()) }}
	if t.settings.Mode == config.ModePool {
		subnet, err := t.subnet(own)
		if err != nil {
			return nil, nil, err
		}
		c.Mode, c.LeaseTime, c.Subnets = dhcp.Pool, t.settings.LeaseTime(), []dhcp.Subnet{subnet}
		c.Store = &leases{reg: t.Registry, leased: func(mac dhcp.MAC, ip netip.Addr) {
			t.addresses.set(machine.MAC(mac), ip)
			t.admission.Leased(machine.MAC(mac), ip)
		}}
	}
	sockets, err := dhcp.Listen(ctx, ifname)
	if err != nil {
		return nil, nil, err
	}
	load, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	d, err := dhcp.New(load, c, sockets)
	if err != nil {
		return nil, nil, errors.Join(err, sockets.Close())
	}
	return func() error { return d.Serve(ctx) }, func() { _ = d.Close() }, nil
}

// subnet is the pool: its last eighth is for machines that may not boot yet.
func (t *term) subnet(own netip.Prefix) (dhcp.Subnet, error) {
	first, last, err := t.settings.Pool(own)
	if err != nil {
		return dhcp.Subnet{}, err
	}
	s := dhcp.Subnet{Prefix: own.Masked(), Range: dhcp.Range{First: first, Last: last}, Domain: t.settings.Domain, NTP: []netip.Addr{own.Addr()}}
	if t.settings.Router != "" {
		if s.Router, err = netip.ParseAddr(t.settings.Router); err != nil {
			return s, err
		}
	}
	for _, text := range t.settings.DNS {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return s, err
		}
		s.DNS = append(s.DNS, a)
	}
	if t.settings.Unknown == config.UnknownIgnore {
		return s, nil
	}
	count := 0
	for a := first; a.Compare(last) <= 0 && count <= 8*maxGuests; a = a.Next() {
		count++
	}
	guests := min(count/8, maxGuests)
	if guests == 0 {
		return s, nil
	}
	s.Guests = dhcp.Range{First: last, Last: last}
	for range guests - 1 {
		s.Guests.First = s.Guests.First.Prev()
	}
	s.Range.Last = s.Guests.First.Prev()
	return s, nil
}

// approve approves every machine that asks.
func (s *Service) approve(ctx context.Context) {
	tick := time.NewTicker(approveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		book, err := s.table.Book()
		if err != nil {
			s.log.Error("approve", "op", "netboot", "err", err)
			continue
		}
		for _, m := range book.Machines() {
			if m.Standing != machine.Pending {
				continue
			}
			if _, err := s.table.Approve(ctx, m.ID().String(), api.MachineChange{}); err != nil {
				s.log.Warn("approve", "op", "netboot", "machine", m.ID(), "err", err)
			}
		}
	}
}

// InterfaceOf finds the interface that has an address.
func InterfaceOf(addr netip.Addr) (string, netip.Prefix, error) {
	return findAddress(func(_ string, p netip.Prefix) bool { return p.Addr() == addr }, "no interface has the address "+addr.String())
}

// AddressOf finds the first IPv4 address of an interface.
func AddressOf(name string) (string, netip.Prefix, error) {
	return findAddress(func(n string, p netip.Prefix) bool { return n == name && p.Addr().Is4() },
		"interface "+strconv.Quote(name)+" has no IPv4 address yet; is it there and configured ([[interface]])?")
}

func findAddress(is func(name string, p netip.Prefix) bool, none string) (string, netip.Prefix, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", netip.Prefix{}, err
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			continue // it went away
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && is(l.Name, p) {
				return l.Name, p, nil
			}
		}
	}
	return "", netip.Prefix{}, errors.New(none)
}
