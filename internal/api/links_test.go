package api

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
)

func wholeReport() MachineReport {
	return MachineReport{
		Links: []LinkInfo{
			{Name: "ic0", Kind: "bond", State: "up", Interconnect: true, Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}, Speed: 1000, Mode: "active-backup", Active: "eth0"},
			{Name: "eth1", MAC: "52:54:00:00:00:01", State: "no carrier", Master: "ic0", Losses: 2, Errors: 1, Why: "no carrier, is the cable in?", Since: time.Unix(1e9, 0).UTC()},
		},
		Boot: &BootInfo{Stage: "system", State: "done", Took: time.Second, Phases: []BootPhase{{Name: "mounts", State: "done", Start: 1, Took: 2}}},
	}
}

func TestMachineReport(t *testing.T) {
	want := wholeReport()
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseMachineReport(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"no JSON":            "{",
		"too many links":     `{"links":[` + strings.Repeat("{},", MaxLinks) + `{}]}`,
		"too many addresses": `{"links":[{"addrs":[` + strings.Repeat(`"10.0.0.1/8",`, MaxLinkAddrs) + `"10.0.0.1/8"]}]}`,
		"too many phases":    `{"boot":{"phases":[` + strings.Repeat("{},", MaxBootPhases) + `{}]}}`,
		"too long":           `{"boot":{"why":"` + strings.Repeat("x", MaxMachineReport) + `"}}`,
	} {
		if r, err := ParseMachineReport([]byte(text)); err == nil || !reflect.DeepEqual(r, MachineReport{}) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	r, err := ParseMachineReport([]byte(`{"links":[{"name":"\u001b[2Jx\n"}],"boot":{"why":"` + strings.Repeat("ä", 300) + `"}}`))
	if err != nil || r.Links[0].Name != "?[2Jx?" || r.Boot.Why != strings.Repeat("ä", maxReportText/2) {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzMachineReport(f *testing.F) {
	b, err := json.Marshal(wholeReport())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"links":[{"name":"\u001b[2J","addrs":["10.0.0.1/24"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseMachineReport(b)
		if err != nil {
			return
		}
		for _, l := range r.Links {
			for _, text := range []string{l.Name, l.State, l.Why, l.Active} {
				if len(text) > maxReportText || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
					t.Errorf("%q", text)
				}
			}
		}
	})
}
