package applet

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"ssi/internal/api"
)

// timeText is what a clock follows and how well, in one line.
func timeText(t api.TimeStatus) string {
	var text string
	switch t.Source {
	case "":
		text = "follows nothing"
		if t.Refused != "" {
			text += ": " + t.Refused
		}
	case api.LocalTime:
		text = fmt.Sprintf("its own clock is the reference, stratum %d", t.Stratum)
	default:
		text = fmt.Sprintf("follows %s, stratum %d, offset %s, delay %s, frequency %+.3fppm",
			t.Source, t.Stratum, millis(t.Offset), strings.TrimPrefix(millis(t.Delay), "+"), t.Frequency)
	}
	if !t.Disciplined {
		text += "; not set by ssi: " + t.Why
	}
	if t.ServeError != "" {
		text += "; other nodes cannot ask: " + t.ServeError
	}
	return text
}

// millis has the resolution of a good local network.
func millis(d time.Duration) string {
	us := d.Round(time.Microsecond) / time.Microsecond // an integer, so never -0.000
	return fmt.Sprintf("%+.3fms", float64(us)/1000)
}

// bootingText is what is known of a machine that is about to become a node.
func bootingText(m api.MachineInfo, now time.Time) string {
	var b strings.Builder
	if len(m.MACs) > 0 {
		b.WriteString(m.MACs[0])
	}
	if m.Node != 0 {
		fmt.Fprintf(&b, " node %d", m.Node)
	}
	since, phase, text := m.PhaseSince, m.Phase, m.Text
	if phase == "" {
		since, phase = m.Booted, "was sent its kernel"
	}
	if m.State == api.MachinePending && m.Phase == "" {
		since, phase, text = m.Since, "asks", cmp.Or(text, "waits for approval (node approve)")
	}
	fmt.Fprintf(&b, ", %s", phase)
	if !since.IsZero() {
		fmt.Fprintf(&b, ", %s", age(now.Sub(since)))
	}
	if text != "" {
		fmt.Fprintf(&b, ": %s", text)
	}
	return b.String()
}
