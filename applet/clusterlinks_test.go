package applet

import (
	"bytes"
	"testing"
	"time"

	"ssi/internal/api"
)

func TestLinkText(t *testing.T) {
	now := time.Unix(1e9, 0)
	for want, l := range map[string]api.LinkInfo{
		"":                      {Name: "eth0"},
		"interconnect, 802.3ad": {Interconnect: true, Mode: "802.3ad"},
		"VLAN: ic0, which carries it, has no carrier (for 5s)":     {Kind: "vlan", Why: "ic0, which carries it, has no carrier", Since: now.Add(-5 * time.Second)},
		"member of ic0, 7 dropped":                                 {Master: "ic0", Dropped: 7},
		"asking for an address by DHCP":                            {Why: "asking for an address by DHCP"},
		"interconnect, active-backup over eth1: it has no address": {Interconnect: true, Mode: "active-backup", Active: "eth1", Why: "it has no address"},
	} {
		if got := linkText(l, now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for mbit, want := range map[int]string{0: "-", 10: "10M", 2500: "2500M", 1000: "1G", 100000: "100G"} {
		if got := speedText(mbit); got != want {
			t.Errorf("%d: %q, want %q", mbit, got, want)
		}
	}
}

func TestPhasesText(t *testing.T) {
	for want, b := range map[string]api.BootInfo{
		"":                        {State: "done", Phases: []api.BootPhase{{Name: "mounts", State: "done", Took: time.Millisecond}}},
		"root: no such disk":      {State: "emergency", Why: "root: no such disk"},
		"fsck waiting: for a key": {State: "running", Why: "not shown twice", Phases: []api.BootPhase{{Name: "fsck", State: "waiting", Why: "for a key"}}},
		"c 3.0s, b 2.0s, d 1.5s; b failed": {Phases: []api.BootPhase{
			{Name: "a", State: "done", Took: time.Second}, {Name: "b", State: "failed", Took: 2 * time.Second},
			{Name: "c", State: "done", Took: 3 * time.Second}, {Name: "d", State: "skipped", Took: 1500 * time.Millisecond},
		}},
	} {
		if got := phasesText(&b); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Where no node tells of its machine there is nothing to see, not even a head.
func TestNoMachines(t *testing.T) {
	var out bytes.Buffer
	s := &api.ClusterStatus{Nodes: []api.NodeInfo{{Node: 1}, {Node: 2, Machine: &api.MachineReport{}}}}
	if err := printLinks(&out, s, time.Now()); err != nil {
		t.Error(err)
	}
	if err := printBoots(&out, s); err != nil {
		t.Error(err)
	}
	if out.Len() > 0 {
		t.Errorf("%q", out.String())
	}
}
