package api

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
)

// Limits of what a node tells of its machine.
const (
	MaxMachineReport = 128 << 10 // bytes as JSON
	MaxLinks         = 64
	MaxLinkAddrs     = 16 // of a link
	MaxBootPhases    = 64
	maxReportText    = 400 // bytes of a text
)

// MachineReport is what a node tells the others of the machine that it runs on.
type MachineReport struct {
	Links []LinkInfo `json:"links,omitempty"`
	Boot  *BootInfo  `json:"boot,omitempty"` // absent where another init started the machine
}

// LinkInfo is a network interface of a node: one that is configured, that the
// nodes talk over, a member of a bond, or what carries a VLAN. Counters begin when
// the link does.
type LinkInfo struct {
	Name         string         `json:"name"`
	Kind         string         `json:"kind,omitempty"` // bond, vlan, veth, …; "" is hardware
	MAC          string         `json:"mac,omitempty"`
	State        string         `json:"state"` // up, down, no carrier, missing
	Interconnect bool           `json:"interconnect,omitempty"`
	Addrs        []netip.Prefix `json:"addrs,omitempty"`
	Speed        int            `json:"speed_mbit,omitempty"` // absent: not known
	Errors       uint64         `json:"errors"`               // frames with an error
	Dropped      uint64         `json:"dropped"`              // frames for which there was no place
	Losses       uint64         `json:"carrier_losses"`       // how often the carrier was lost
	Master       string         `json:"master,omitempty"`     // the bond that it is a member of
	Mode         string         `json:"mode,omitempty"`       // of a bond
	Active       string         `json:"active,omitempty"`     // of a bond: the member that works
	Why          string         `json:"why,omitempty"`        // why it is not as configured
	Since        time.Time      `json:"since,omitzero"`       // of Why
}

// BootInfo is how a machine started, or how far it is.
type BootInfo struct {
	Stage  string        `json:"stage"` // initramfs or system
	State  string        `json:"state"` // running, waiting, done, failed, emergency
	Why    string        `json:"why,omitempty"`
	Took   time.Duration `json:"took_ns"` // from the start of the kernel to the end of the last phase
	Phases []BootPhase   `json:"phases,omitempty"`
}

// BootPhase is a step of the start.
type BootPhase struct {
	Name  string        `json:"name"`
	State string        `json:"state"`    // as of BootInfo, or skipped
	Start time.Duration `json:"start_ns"` // since the kernel started
	Took  time.Duration `json:"took_ns"`  // so far, when it is not over
	Why   string        `json:"why,omitempty"`
}

// ParseMachineReport reads what another node tells. Texts in it are made harmless
// for a terminal; what is more than the limits allow is an error.
func ParseMachineReport(b []byte) (MachineReport, error) {
	var r MachineReport
	if len(b) > MaxMachineReport {
		return r, fmt.Errorf("report of a machine: longer than %d bytes", MaxMachineReport)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return MachineReport{}, fmt.Errorf("report of a machine: %w", err)
	}
	if len(r.Links) > MaxLinks || r.Boot != nil && len(r.Boot.Phases) > MaxBootPhases {
		return MachineReport{}, fmt.Errorf("report of a machine: more than %d links or %d phases", MaxLinks, MaxBootPhases)
	}
	for i := range r.Links {
		l := &r.Links[i]
		if len(l.Addrs) > MaxLinkAddrs {
			return MachineReport{}, fmt.Errorf("report of a machine: more than %d addresses of a link", MaxLinkAddrs)
		}
		plain(&l.Name, &l.Kind, &l.MAC, &l.State, &l.Master, &l.Mode, &l.Active, &l.Why)
	}
	if r.Boot != nil {
		plain(&r.Boot.Stage, &r.Boot.State, &r.Boot.Why)
		for i := range r.Boot.Phases {
			p := &r.Boot.Phases[i]
			plain(&p.Name, &p.State, &p.Why)
		}
	}
	return r, nil
}

// plain makes texts printable ones of one line and at most maxReportText bytes.
func plain(texts ...*string) {
	for _, t := range texts {
		s := strings.ToValidUTF8((*t)[:min(len(*t), maxReportText)], "")
		*t = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return '?'
			}
			return r
		}, s)
	}
}
