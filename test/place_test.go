package test

import (
	"strconv"
	"strings"
	"testing"

	"ssi/internal/id"
)

// TestPlace: a command on another node has its caller's PID, parent, group and
// session, everywhere in the cluster, and nothing that serves this is seen or left.
func TestPlace(t *testing.T) {
	c := start(t, 3)
	ps := func(n id.Node, columns string) string {
		t.Helper()
		return c.login(n, "", "ps", "-e", "-o", columns).stdout
	}
	standIns := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(c.do(2, "sh", "-c", "pgrep -cx ssi-standin || true")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	// The shell and the command say the same.
	c.stock(nil, `me=$$; f=$(mktemp)
onnode 2 sh -c 'ps -o pid=,ppid=,pgid=,sid= -p $$; read x' <&- >$f &
wait
set -- $(cat $f); [ $1 = $! ] && [ $2 = $me ] && set -- "$@" $(ps -o pgid=,sid= -p $me) && [ "$3 $4" = "$5 $6" ] && echo same || echo "$@"`, "^same\n$")
	// Its children see it, and it sees the processes of home.
	c.stock(nil, `onnode 2 sh -c 'sh -c "ps -o comm= -p \$PPID"; ps -o comm= -p $PPID'`, "^sh\nsh\n$")
	// On the own node the caller becomes the command.
	c.stock(nil, `onnode 1 sh -c 'echo $$ $SSI_NODE' & wait; echo $! 1`, `^(\d+ 1)\n(\d+ 1)\n$`)
	// Back on the node of its parent it runs all the same.
	c.stock(nil, `onnode 2 onnode 1 sh -c 'echo $SSI_NODE; exit 7'; echo $?`, "^1\n7\n$")
	// A program of its own session, and one whose parent has ended.
	c.stock(nil, `setsid -w onnode 2 sh -c '[ $(ps -o sid= -p $$) = $$ ] && echo leader'`, "^leader\n$")
	c.stock(nil, `(onnode 2 sh -c 'read x; while [ $(ps -o ppid= -p $$) != 1 ]; do :; done; echo orphan' <&- & sleep 0) | cat`, "^orphan\n$")

	// One entry for it on each node; killed from a third one, its parent hears of it.
	r := c.login(1, "", "bash", "-c", `onnode 2 sleep 4761 & echo $!
until onnode 3 ps -o args= -p $! | grep -qx "sleep 4761"; do :; done
for n in 1 2 3; do onnode $n ps -e -o args= | grep -cx "sleep 4761"; onnode $n ps -e -o comm= | grep -c ^ssi-standin; done
onnode 3 kill $!; wait $!; echo $?`)
	if lines := strings.Fields(r.stdout); len(lines) != 8 || strings.Join(lines[1:], " ") != "1 0 1 0 1 0 143" {
		t.Errorf("%+v", r)
	}

	// Killed with -9 at home, the command is; and so when the command is.
	const killed = "^(Killed\n)?$" // a shell may say so
	c.stockFails(nil, `onnode 2 sleep 4762 & until onnode 2 pgrep -xf "sleep 4762" >/dev/null; do :; done; kill -9 $!; wait $!; echo $?`, 0, "^137\n$", killed)
	c.eventually("it is gone", func() bool { return !strings.Contains(ps(3, "args="), "sleep 4762") })
	c.stockFails(nil, `onnode 2 sh -c 'kill -9 $$'; echo $?`, 0, "^137\n$", killed)

	// Killed in the midst, the daemon's successor starts anew, with nothing left.
	c.do(2, "sh", "-c", "kill -9 $(pgrep -P 1 -f '^ssi node')")
	c.eventually("commands run again", func() bool {
		return strings.TrimSpace(c.login(1, "", "sh", "-c", `onnode 2 sh -c 'ps -o comm= -p $PPID'; :`).stdout) == "sh"
	})
	c.eventually("one stand-in is left, for the next", func() bool { return standIns() <= 1 })
	if list := ps(2, "comm="); strings.Contains(list, "ssi-standin") {
		t.Errorf("stand-ins are shown:\n%s", list)
	}
}
