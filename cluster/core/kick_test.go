package core

import (
	"strings"
	"testing"
	"time"

	"ssi/cluster/member"
)

// TestKickEveryLife: an operator's order to declare a node dead counts for each
// life of the node, with the operator's cause all the way to DOWN.
func TestKickEveryLife(t *testing.T) {
	w := cluster(t, 7, 3)
	for _, cause := range []string{"first", "second"} {
		runUntil(t, w, 10*time.Second, "node 3 UP", func() bool { return w.node(1).core.View().Get(3).State == member.Up })
		cmd := member.Command{Op: member.SetState, Node: 3, To: member.KCleanup, Cause: cause}
		w.node(1).propose(Membership, cmd.Encode(), 8*time.Second, func(Outcome) {})
		runUntil(t, w, 8*time.Second, "node 3 DOWN", func() bool {
			n := w.node(1).core.View().Get(3)
			return n.State == member.Down && strings.Contains(n.Cause, cause)
		})
	}
	for _, tr := range w.node(1).core.View().History {
		if tr.Node == 3 && tr.To >= member.KCleanup && tr.Cause != "first" && tr.Cause != "second" {
			t.Errorf("the cause of %+v is lost", tr)
		}
	}
}
