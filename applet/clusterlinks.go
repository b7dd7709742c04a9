package applet

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"ssi/internal/api"
)

const (
	// slowPhases is how many of the phases that took longest are shown.
	slowPhases = 3
	// shortPhase is how long a phase takes that nobody asks for.
	shortPhase = 100 * time.Millisecond
)

// printLinks prints the links of all nodes that told of any.
func printLinks(w io.Writer, s *api.ClusterStatus, now time.Time) error {
	if !slices.ContainsFunc(s.Nodes, func(n api.NodeInfo) bool { return n.Machine != nil && len(n.Machine.Links) > 0 }) {
		return nil
	}
	fmt.Fprintln(w)
	tw := newTable(w)
	fmt.Fprintln(tw, "NODE\tLINK\tSTATE\tSPEED\tADDRESS\tERRORS\tLOST\tWHAT")
	for _, n := range s.Nodes {
		if n.Machine == nil {
			continue
		}
		for _, l := range n.Machine.Links {
			fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", n.Node, l.Name, l.State, speedText(l.Speed), addrsText(l), l.Errors, l.Losses, orDash(linkText(l, now)))
		}
	}
	return tw.Flush()
}

func speedText(mbit int) string {
	switch {
	case mbit == 0:
		return "-"
	case mbit%1000 == 0:
		return fmt.Sprintf("%dG", mbit/1000)
	}
	return fmt.Sprintf("%dM", mbit)
}

func addrsText(l api.LinkInfo) string {
	var all []string
	for _, a := range l.Addrs {
		all = append(all, a.String())
	}
	return orDash(strings.Join(all, ","))
}

// linkText is what a link is for, and what is wrong with it.
func linkText(l api.LinkInfo, now time.Time) string {
	var parts []string
	if l.Interconnect {
		parts = append(parts, "interconnect")
	}
	switch {
	case l.Mode != "" && l.Active != "":
		parts = append(parts, l.Mode+" over "+l.Active)
	case l.Mode != "":
		parts = append(parts, l.Mode)
	case l.Master != "":
		parts = append(parts, "member of "+l.Master)
	case l.Kind == "vlan":
		parts = append(parts, "VLAN")
	}
	if l.Dropped > 0 {
		parts = append(parts, fmt.Sprintf("%d dropped", l.Dropped))
	}
	text := strings.Join(parts, ", ")
	if l.Why == "" {
		return text
	}
	if text != "" {
		text += ": "
	}
	text += l.Why
	if !l.Since.IsZero() {
		text += fmt.Sprintf(" (for %s)", age(now.Sub(l.Since)))
	}
	return text
}

// printBoots prints how the machines of the nodes started, of those that told.
func printBoots(w io.Writer, s *api.ClusterStatus) error {
	if !slices.ContainsFunc(s.Nodes, func(n api.NodeInfo) bool { return n.Machine != nil && n.Machine.Boot != nil }) {
		return nil
	}
	fmt.Fprintln(w)
	tw := newTable(w)
	fmt.Fprintln(tw, "NODE\tBOOT\tTOOK\tPHASES")
	for _, n := range s.Nodes {
		if n.Machine != nil && n.Machine.Boot != nil {
			b := n.Machine.Boot
			fmt.Fprintf(tw, "%d\t%s %s\t%s\t%s\n", n.Node, b.Stage, b.State, seconds(b.Took), orDash(phasesText(b)))
		}
	}
	return tw.Flush()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// phasesText is those phases that took longest, and those that are not done with
// the reason.
func phasesText(b *api.BootInfo) string {
	slow := slices.Clone(b.Phases)
	slices.SortStableFunc(slow, func(x, y api.BootPhase) int { return cmp.Compare(y.Took, x.Took) })
	var took, parts []string
	for _, p := range slow[:min(len(slow), slowPhases)] {
		if p.Took >= shortPhase {
			took = append(took, p.Name+" "+seconds(p.Took))
		}
	}
	if len(took) > 0 {
		parts = append(parts, strings.Join(took, ", "))
	}
	whole := true
	for _, p := range b.Phases {
		if p.State != "done" && p.State != "skipped" {
			whole = false
			parts = append(parts, strings.TrimSuffix(fmt.Sprintf("%s %s: %s", p.Name, p.State, p.Why), ": "))
		}
	}
	if whole && b.Why != "" {
		parts = append(parts, b.Why)
	}
	return strings.Join(parts, "; ")
}
