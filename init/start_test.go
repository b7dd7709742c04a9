package pid1

import (
	"log/slog"
	"testing"
	"time"

	"ssi/internal/keeper"
)

// TestLateRoles: what only people wait for starts when the node serves, or a while
// after it; a role that ended keeps its back-off.
func TestLateRoles(t *testing.T) {
	d := newInitd(Options{Exe: "/proc/self/exe", Services: []Service{{Name: "initctl", Args: []string{"initctl"}}}, Log: slog.New(slog.DiscardHandler)})
	before := time.Now()
	d.starting = &starting{next: d.roles}
	d.goOn()
	late := d.roles[len(d.roles)-1]
	if late.name != "initctl" || late.due.Before(before.Add(lateStart)) || late.due.After(time.Now().Add(lateStart)) {
		t.Fatalf("%s is due at %v", late.name, late.due)
	}
	if !d.node.due.IsZero() {
		t.Errorf("the node is due at %v", d.node.due)
	}
	again := time.Now().Add(time.Hour)
	d.spawn.started, d.spawn.due = before, again
	d.requested(request{op: keeper.OpReady})
	if late.due.After(time.Now()) {
		t.Errorf("the node serves, and %s is due at %v", late.name, late.due)
	}
	if d.spawn.due != again {
		t.Errorf("a role that ended is due at %v", d.spawn.due)
	}
}
