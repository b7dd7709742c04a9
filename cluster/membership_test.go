package cluster

import (
	"fmt"
	"slices"
	"testing"

	"ssi/cluster/member"
	"ssi/internal/id"
)

// TestReportGone: OnGone is told once of each other life that ended, and why.
func TestReportGone(t *testing.T) {
	node := func(n id.Node, inc id.Incarnation, s member.State, cause string) member.Node {
		return member.Node{Node: n, Incarnation: inc, State: s, Cause: cause}
	}
	var got []string
	c := &Cluster{self: 1, cfg: Config{OnGone: func(n id.Node, cause string) { got = append(got, fmt.Sprintf("%d: %s", n, cause)) }}}
	before := &member.View{Nodes: []member.Node{
		node(1, 1, member.Up, ""), node(2, 1, member.Up, ""), node(3, 1, member.Shutdown, ""), node(4, 1, member.Up, ""),
		node(5, 1, member.Up, ""), node(6, 1, member.UCleanup, "old"),
	}}
	after := &member.View{Nodes: []member.Node{
		node(1, 1, member.KCleanup, "self"), node(2, 1, member.GoingDown, "goes"), node(3, 1, member.Down, "silent"),
		node(4, 2, member.ComingUp, "joined"), node(6, 1, member.Down, "old"), node(7, 1, member.Up, "new"),
	}}
	c.reportGone(before, after)
	if want := []string{"3: silent", "4: it was started anew", "5: it was removed from the cluster"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	got = nil
	c.reportGone(after, after)
	if len(got) > 0 {
		t.Errorf("told again %q", got)
	}
	(&Cluster{}).reportGone(before, after) // nobody wants to know
}
