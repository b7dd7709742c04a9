package feature

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxOffset is how far clocks of nodes may be apart before certificates and
	// logs become confusing. Leases do not depend on it.
	maxOffset = 500 * time.Millisecond
	// timeError is TIME_ERROR of adjtimex(2): the clock is not synchronised.
	timeError = 5
	// earliest is a year that certainly has passed.
	earliest = 2025
)

// clock examines the wall clock.
func clock(opts Options) []Result {
	results := []Result{year(time.Now()), synced()}
	if len(opts.Clocks) > 0 {
		results = append(results, offsets(opts.Clocks))
	}
	return results
}

func year(now time.Time) Result {
	r := Result{Area: "clock", Name: "date", Level: OK, Text: now.UTC().Format("2006-01-02 15:04:05 UTC")}
	if now.Year() < earliest {
		r.Level, r.Todo = Warn, "set the clock: certificates of other nodes look as if from the future"
	}
	return r
}

func synced() Result {
	r := Result{Area: "clock", Name: "synchronised"}
	var tx unix.Timex
	state, err := unix.Adjtimex(&tx)
	switch {
	case err != nil:
		return outcome(r, "", fmt.Errorf("adjtimex: %w", err), "")
	case state == timeError || tx.Status&unix.STA_UNSYNC != 0:
		r.Level, r.Text, r.Todo = Warn, "the kernel says no", "install chrony or systemd-timesyncd; the cluster works without, its logs are harder to read"
	default:
		r.Level, r.Text = OK, fmt.Sprintf("yes, estimated error %d us", tx.Esterror)
	}
	return r
}

func offsets(clocks []Clock) Result {
	r := Result{Area: "clock", Name: "other nodes", Level: OK}
	worst := clocks[0]
	for _, c := range clocks[1:] {
		if c.Offset.Abs() > worst.Offset.Abs() {
			worst = c
		}
	}
	r.Text = fmt.Sprintf("%s is farthest, by %v", worst.Name, worst.Offset.Round(100*time.Microsecond))
	if worst.Offset.Abs() > maxOffset {
		r.Level, r.Todo = Warn, "synchronise the clocks of both nodes"
	}
	return r
}
