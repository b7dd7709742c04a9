package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"ssi/cluster/member"
	"ssi/init/boot"
	"ssi/internal/api"
	"ssi/internal/config"
	"ssi/internal/id"
	"ssi/internal/netconf"
)

// otherAddrs are the addresses of this node beside addr: one on each further
// interconnect, if connections to any address are accepted.
func otherAddrs(cfg config.Config, addr string) []string {
	host, port, err := net.SplitHostPort(cfg.Listen)
	if a, aerr := netip.ParseAddr(host); err != nil || host != "" && (aerr != nil || !a.IsUnspecified()) {
		return nil
	}
	var others []string
	for _, name := range cfg.Interconnects() {
		a, ok := addrOf(name)
		if !ok {
			continue
		}
		other := net.JoinHostPort(a.String(), port)
		if own, ok := hostOf(addr); ok && own == a || slices.Contains(others, other) || len(others) == member.MaxOthers {
			continue
		}
		others = append(others, other)
	}
	return others
}

// machineView looks at the machine of this node.
type machineView struct {
	cfg     config.Config
	addrs   []string // HOST:PORT of this node
	machine *ownMachine
	log     *slog.Logger
}

// wanted is the links to tell of.
func (v *machineView) wanted() netconf.Wanted {
	w := netconf.Wanted{Names: slices.Clone(v.cfg.Interconnects())}
	for _, i := range v.cfg.Interfaces {
		if i.Name != "" || i.MAC != "" { // one that is found by its driver alone is known by its address, or not at all
			w.Names = append(w.Names, i.Label())
		}
	}
	slices.Sort(w.Names)
	w.Names = slices.Compact(w.Names)
	for _, addr := range v.addrs {
		if a, ok := hostOf(addr); ok {
			w.Addrs = append(w.Addrs, a)
		}
	}
	return w
}

// report is what this node tells of its machine. What cannot be found out is left
// out.
func (v *machineView) report() api.MachineReport {
	var r api.MachineReport
	w := v.wanted()
	links, err := netconf.Look(w)
	if err != nil {
		v.log.Warn("the links cannot be read", "op", "report", "err", err)
	}
	why := map[string]netconf.Status{}
	if v.machine != nil {
		for _, s := range v.machine.net.Status() {
			why[s.Name] = s
		}
	}
	interconnects := v.cfg.Interconnects()
	for _, h := range links[:min(len(links), api.MaxLinks)] {
		l := api.LinkInfo{
			Name: h.Name, Kind: h.Kind, MAC: h.MAC, State: h.State, Addrs: h.Addrs[:min(len(h.Addrs), api.MaxLinkAddrs)], Speed: h.Speed,
			Errors: h.Errors, Dropped: h.Dropped, Losses: h.Losses, Master: h.Master, Mode: h.Mode, Active: h.Active,
		}
		l.Interconnect = slices.ContainsFunc(interconnects, func(name string) bool {
			return name == h.Name || h.Kind == "" && h.Master == "" && strings.EqualFold(name, h.MAC)
		}) || slices.ContainsFunc(h.Addrs, func(p netip.Prefix) bool { return slices.Contains(w.Addrs, p.Addr()) })
		if s := why[h.Name]; s.Why != "" {
			l.Why, l.Since = s.Why, s.Since
		}
		r.Links = append(r.Links, l)
	}
	if v.machine != nil {
		r.Boot = v.boot()
	}
	return r
}

func (v *machineView) boot() *api.BootInfo {
	b, err := boot.ReadReport(runDir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			v.log.Warn("how this machine started is not known", "op", "report", "err", err)
		}
		return nil
	}
	out := &api.BootInfo{Stage: b.Stage, State: string(b.State), Why: b.Why, Took: b.Took}
	for _, p := range b.Phases[:min(len(b.Phases), api.MaxBootPhases)] {
		out.Phases = append(out.Phases, api.BootPhase{Name: p.Name, State: string(p.State), Start: p.Start, Took: p.Took, Why: p.Why})
	}
	return out
}

// encoded is report for other nodes.
func (v *machineView) encoded() []byte {
	b, err := json.Marshal(v.report())
	if err != nil { // plain data
		v.log.Error("report of this machine", "err", err)
	}
	return b
}

// reports is what the nodes tell of their machines.
func (p *parts) reports(ctx context.Context) map[id.Node]api.MachineReport {
	out := map[id.Node]api.MachineReport{}
	for n, b := range p.cluster.Machines(ctx) {
		if len(b) == 0 {
			continue // a node of an older version, or none that has a machine
		}
		r, err := api.ParseMachineReport(b)
		if err != nil {
			p.n.log.Warn("what a node tells of its machine is not understood", "op", "status", "peer", n, "err", err)
			continue
		}
		out[n] = r
	}
	return out
}
