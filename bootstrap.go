package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"ssi/applet"
	"ssi/cluster"
	"ssi/internal/config"
	"ssi/netboot/machine"
)

// bootstrap makes this machine a node by writing its files: what `cluster init`
// and `cluster join` do while no daemon has a cluster.
type bootstrap struct{ version string }

// Init founds a cluster.
func (bootstrap) Init(_ context.Context, o applet.InitOptions) (applet.InitResult, error) {
	cfg, err := loadConfig()
	if err != nil {
		return applet.InitResult{}, err
	}
	profile := o.Profile
	if profile == "" {
		profile = cfg.Profile
	}
	addr, err := ownAddr(o.Addr, cfg)
	if err != nil {
		return applet.InitResult{}, err
	}
	ident, tokens, err := cluster.Found(cluster.NewCluster{
		Dir: cfg.StateDir, Name: o.Name, Node: o.Node, Profile: profile, Addr: addr, Tokens: o.Tokens, Force: o.Force,
	})
	if err != nil {
		return applet.InitResult{}, err
	}
	return applet.InitResult{ID: ident.ID, Name: ident.Name, Node: ident.Node, Addr: addr, Tokens: tokens}, nil
}

// Join asks a cluster to be let in.
func (b bootstrap) Join(ctx context.Context, o applet.JoinOptions) (applet.JoinResult, error) {
	cfg, err := loadConfig()
	if err != nil {
		return applet.JoinResult{}, err
	}
	ident, err := join(ctx, cfg, o, b.version)
	if err != nil {
		return applet.JoinResult{}, err
	}
	return applet.JoinResult{ID: ident.ID, Name: ident.Name, Node: ident.Node}, nil
}

// join is what `cluster join` does, and the daemon that finds a join file.
func join(ctx context.Context, cfg config.Config, o applet.JoinOptions, version string) (cluster.Identity, error) {
	addr, err := ownAddr(o.Addr, cfg)
	if err != nil {
		return cluster.Identity{}, err
	}
	name := o.Name
	if name == "" {
		if name, err = nodeName(cfg); err != nil {
			return cluster.Identity{}, err
		}
	}
	return cluster.JoinAs(ctx, cluster.JoinRequest{
		Dir: cfg.StateDir, Token: o.Token, Addrs: o.Addrs, Name: name, Addr: addr, Witness: o.Witness, Version: version,
	})
}

// Rejoin puts the state of a node aside whose daemon cannot start.
func (bootstrap) Rejoin(context.Context) (string, error) {
	cfg, err := loadConfig()
	if err != nil {
		return "", err
	}
	return cluster.PutAside(cfg.StateDir)
}

// ownAddr is where other nodes reach this one: as told, as configured, the address
// of the first interconnect, or that of the default route.
func ownAddr(told string, cfg config.Config) (string, error) {
	switch {
	case told != "":
		return config.CompleteAddr(told)
	case cfg.Addr != "":
		return config.CompleteAddr(cfg.Addr)
	}
	_, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return "", err
	}
	for _, name := range cfg.Interconnects() {
		if ip, ok := addrOf(name); ok {
			return net.JoinHostPort(ip.String(), port), nil
		}
	}
	if url := netbootedFrom(kernelParams()); url != "" && ownsMachine() { // it may have no default route
		if facing, err := machine.Facing(url); err == nil && len(facing) > 0 {
			return net.JoinHostPort(facing[0].Addr.String(), port), nil
		}
	}
	ip, err := routeAddr()
	if err != nil {
		return "", fmt.Errorf("which address do other nodes reach this one at? %w; say it with --addr, or addr in %s", err, config.Path)
	}
	return net.JoinHostPort(ip.String(), port), nil
}

// addrOf is the first address of an interface, named by its name or MAC address,
// that others can reach.
func addrOf(name string) (netip.Addr, bool) {
	links, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, l := range links {
		if l.Name != name && !strings.EqualFold(l.HardwareAddr.String(), name) {
			continue
		}
		addrs, _ := l.Addrs() // none: it went away
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				return p.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

// routeAddr is the source address of the default route. Connecting a UDP socket
// sends nothing (udp(7)); 192.0.2.1 is an address for documentation (RFC 5737).
func routeAddr() (net.IP, error) {
	conn, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		return nil, errors.New("there is no default route")
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP, nil
}

// nodeName is the configured name, or the host name. A machine that was given
// neither is named after the interface it booted from.
func nodeName(cfg config.Config) (string, error) {
	if cfg.Name != "" {
		return cfg.Name, nil
	}
	name, err := os.Hostname()
	if err == nil && (config.CheckName(name) != nil || name == "localhost") {
		for _, i := range cfg.Interfaces {
			if i.MAC != "" {
				return "m" + strings.ReplaceAll(i.MAC, ":", ""), nil
			}
		}
	}
	return name, err
}
