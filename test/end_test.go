package test

import (
	"testing"

	"ssi/internal/api"
)

// TestOrderlyEnd: whoever ends a node asks its processes to end first, and serves them
// until they have: one that was started from another node sees and signals processes of
// the cluster at its end, and its own status is that of the command there.
func TestOrderlyEnd(t *testing.T) {
	c := start(t, 2)
	c.stockFails(nil, `onnode 2 sh -c 'trap "ps -o comm= -p $PPID; kill -0 $PPID && echo signalled; exit 7" TERM
	echo >/var/lib/ssi/ready; while :; do sleep 0.05; done' & it=$!
until onnode 2 test -e /var/lib/ssi/ready; do :; done
onnode 2 ssi poweroff >/dev/null 2>&1
wait $it; echo $?`, 0, "^(sh|bash)\nsignalled\n7\n$", "^(Terminated\n)*$") // the shell says what became of its sleep
	c.await(1, "node 2 left in order", func(s *api.ClusterStatus) bool {
		for _, n := range s.Nodes {
			if n.Node == 2 && n.State == api.Down {
				return n.Cause == "orderly shutdown"
			}
		}
		return false
	})
}
