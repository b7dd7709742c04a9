package main

import (
	"log/slog"
	"slices"
	"testing"

	"ssi/internal/api"
	"ssi/internal/config"
)

func TestOtherAddrs(t *testing.T) {
	for _, c := range []struct {
		listen, addr string
		want         []string
	}{
		{":1985", "192.0.2.1:1985", []string{"127.0.0.1:1985"}},
		{"0.0.0.0:7", "192.0.2.1:1985", []string{"127.0.0.1:7"}},
		{":1985", "127.0.0.1:1985", nil},
		{"192.0.2.1:1985", "192.0.2.1:1985", nil}, // on the others nobody listens
	} {
		cfg := config.Config{Listen: c.listen, Interconnect: []string{"none", "lo", "lo"}}
		if got := otherAddrs(cfg, c.addr); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// The report of this computer goes through what the others check.
func TestReportOfLinks(t *testing.T) {
	v := &machineView{
		cfg:   config.Config{Interfaces: []config.Interface{{Name: "absent0"}, {Driver: "e1000"}}},
		addrs: []string{"127.0.0.1:1985"}, log: slog.New(slog.DiscardHandler),
	}
	r, err := api.ParseMachineReport(v.encoded())
	if err != nil || r.Boot != nil || len(r.Links) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if lo := r.Links[0]; lo.Name != "lo" || lo.State != "up" || !lo.Interconnect || len(lo.Addrs) == 0 {
		t.Errorf("%+v", lo)
	}
	if l := r.Links[1]; l.Name != "absent0" || l.State != "missing" || l.Interconnect {
		t.Errorf("%+v", l)
	}
}
