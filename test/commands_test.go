package test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ssi/internal/api"
	"ssi/internal/id"
)

// typed is a command line as users type it on node 1, and what it must do. An
// empty pattern stands for no output at all.
type typed struct {
	line   string
	status int
	stdout string
	stderr string
}

// check types a line, as root or with user before it.
func (c *cluster) check(user []string, want typed) {
	c.t.Helper()
	got := c.run(1, "", slices.Concat(user, []string{"sh", "-c", want.line})...)
	if got.status != want.status {
		c.t.Errorf("%s: status %d, want %d; stderr: %s", want.line, got.status, want.status, got.stderr)
	}
	for _, s := range []struct{ what, text, pattern string }{{"stdout", got.stdout, want.stdout}, {"stderr", got.stderr, want.stderr}} {
		if s.pattern == "" && s.text != "" || !regexp.MustCompile(s.pattern).MatchString(s.text) {
			c.t.Errorf("%s: %s is %q, want a match of %q", want.line, s.what, s.text, s.pattern)
		}
	}
}

// commandLab is three nodes, the second of class web.
func commandLab(t *testing.T) *cluster {
	t.Helper()
	c := start(t, 3)
	c.do(2, "sh", "-c", `echo 'classes = ["web"]' >/etc/ssi/ssi.toml`)
	c.ok(c.Crash(c.ctx(), 2))
	c.ok(c.StartNode(c.ctx(), 2))
	c.await(1, "the class of node 2", func(s *api.ClusterStatus) bool {
		n, _ := s.Find(2)
		return n.State == api.Up && slices.Contains(n.Classes, "web")
	})
	c.await(2, "serving", func(s *api.ClusterStatus) bool { return s.Serving })
	return c
}

// TestCommands types every command.
func TestCommands(t *testing.T) {
	c := commandLab(t)
	c.do(1, "sh", "-c", "sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >/run/sleeper")

	reading := []typed{
		{"cluster", 0, `(?s)^NODE +NAME +STATE +INIT +ROLE +LOAD +ADDRESS +SINCE\n1 \* +node1 +UP .*\n2 +node2 +UP .*\n3 +node3 +UP [^\n]*\n$`, ``},
		{"cluster -v", 0, `(?s)^cluster: +TestCommands-\d+ \([0-9a-f]{32}\)\nthis node: +1, serving\ninit: +node [123], term \d+\nquorum: +yes\n.*CAUSE`, ``},
		{"cluster -V 2", 0, `(?s)^Node 2:\n\tState: UP\n\tPrevious state: .*\tName: node2\n.*\tClasses: web\n`, ``},
		{"cluster -V node2", 0, `^Node 2:`, ``},
		{"cluster -V 99", 0, `^Node 99:\n\tState: NEVERUP\n$`, ``},
		{"cluster -V", 0, `(?s)^Node 1:.*\nNode 2:.*\nNode 3:`, ``},
		{"cluster history", 0, `^TRANSITION +TIME +NODE +CHANGE +CAUSE\n1 `, ``},
		{"cluster nosuch", 2, ``, "^cluster: there is no command \"nosuch\"\nTry `cluster --help`.\n$"},
		{"clustername", 0, `^TestCommands-\d+\n$`, ``},
		{"clusternode_num", 0, `^1\n$`, ``},
		{"clusternode_getstate", 0, `^UP\n$`, ``},
		{"clusternode_getstate 2", 0, `^UP\n$`, ``},
		{"clusternode_getstate 99", 0, `^NEVERUP\n$`, ``},
		{"clusternode_avail node3", 0, ``, ``},
		{"clusternode_avail 99", 1, ``, ``},
		{"clusternode_avail nosuch", 2, ``, `nosuch`},
		{"loads", 0, `^1: \d+\n2: \d+\n3: \d+\n$`, ``},
		{"loads -n 2", 0, `^2: \d+\n$`, ``},
		{"loads -n 77", 1, ``, `^loads: node 77 `},
		{"fastnode", 0, `^[123]\n$`, ``},
		{"fast uname -n", 0, `^node[123]\n$`, ``},
		{"onnode best uname -n", 0, `^node[123]\n$`, ``},
		{"onnode node3 uname -n", 0, `^node3\n$`, ``},
		{"onnode 2 sh -c 'echo $SSI_NODE'", 0, `^2\n$`, ``},
		{"onall uname -n | sort", 0, `^node1: node1\nnode2: node2\nnode3: node3\n$`, ``},
		{"onall --no-prefix -j1 uname -n", 0, `^node1\nnode2\nnode3\n$`, ``},
		{"onall sh -c 'exit $SSI_NODE'", 3, ``, `^onall: failed on 3 of 3 nodes: node1 \(status 1\), node2 \(status 2\), node3 \(status 3\)\n$`},
		{"onclass web uname -n", 0, `^node2: node2\n$`, ``},
		{"onclass mail true", 255, ``, `^onclass: no node that is UP is of class "mail"; the classes are: web\n$`},
		{"localview onall uname -n", 0, `^node1: node1\n$`, ``},
		{"localview loads", 0, `^1: \d+\n$`, ``},
		{"onnode 3 localview onall uname -n", 0, `^node3: node3\n$`, ``},
		{"onnode -l 3 onall uname -n", 0, `^node3: node3\n$`, ``},
		{"where_pid 1", 0, `^1\n$`, ``},
		{"where_pid --node 3 1", 0, `^3\n$`, ``},
		{"where_pid $(cat /run/sleeper)", 0, `^1\n$`, ``},
		{"onnode 2 where_pid $(cat /run/sleeper)", 0, `^1\n$`, ``},
		{"onnode 2 sh -c 'where_pid $$'", 0, `^2\n$`, ``},
		{"where_pid 99999", 1, ``, `^where_pid: .*99999`},
		{"where_pid 4000000", 1, ``, `^where_pid: node 122 `},
		{"where_pid x", 2, ``, `"x" is not a process ID`},
		{"ssi ps aux", 0, `(?s)^NODE USER +PID %CPU %MEM +VSZ +RSS TTY +STAT START +TIME COMMAND\n +1 root +1 .* ssi init\n.*\n +3 root +1 .* ssi init\n`, ``},
		{"ssi ps -ef", 0, `(?s)^NODE UID +PID +PPID +C STIME TTY +TIME CMD\n.*\n +2 root +1 +0 .* ssi init\n`, ``},
		{"ssi ps -e -o node=,pid=,comm= --node 2 | head -n 1", 0, `^ +2 +1 ssi\n$`, ``},
		{"ssi ps -o pid= -p $(cat /run/sleeper) | tr -d ' ' | cmp - /run/sleeper", 0, ``, ``},
		{"onnode 2 ssi ps -o args= -p $(cat /run/sleeper)", 0, `^sleep 1000\n$`, ``},
		{"ssi ps -o nosuch", 1, ``, `nosuch`},
		{"ssi kill -l", 0, `^HUP INT QUIT `, ``},
		{"ssi kill -l 9", 0, `^KILL\n$`, ``},
		{"clreg ls /nothing", 0, ``, ``},
		{"clreg get /nothing", 1, ``, `^clreg get: no key /nothing\n$`},
		{"ssi top -b -n 1", 0, `(?s)^ssi top - .* 3 nodes,.*\nnode 3 .*\nNODE +PID USER .*\n +2 +1 root `, ``},
		{"ssi doctor", 0, `kernel +release`, ``},
		{"ssi version", 0, `^ssi .*linux/`, ``},
		{"ssi help", 0, `(?s)The cluster:.*onnode `, ``},
		{"ssi help onnode", 0, `^onnode - run a program on a node\n`, ``},
		{"ssi nosuch", 2, ``, `^ssi: there is no command "nosuch"`},
		{"onnode", 2, ``, `^onnode: arguments are missing`},
	}
	writing := []typed{
		{"clreg put /cmd/a 1", 0, `^\d+\n$`, ``},
		{"clreg put -q /cmd/b 'two words'", 0, ``, ``},
		{"echo -n from stdin | clreg put -q /cmd/c", 0, ``, ``},
		{"onnode 3 clreg get /cmd/b", 0, `^two words\n$`, ``},
		{"clreg get -n /cmd/c", 0, `^from stdin$`, ``},
		{"clreg ls /cmd/", 0, `^/cmd/a\n/cmd/b\n/cmd/c\n$`, ``},
		{"clreg cas /cmd/a 1 2", 3, ``, `^clreg cas: .*/cmd/a is at revision \d+, not 1\n$`},
		{"clreg cas -q /cmd/a $(clreg get --json /cmd/a | grep -o '\"mod\": [0-9]*' | grep -o '[0-9]*') 2 && clreg get /cmd/a", 0, `^2\n$`, ``},
		{"clreg cas -q /cmd/new 0 x && clreg cas /cmd/new 0 y", 3, ``, `exists|revision`},
		{"clreg del /cmd/b", 0, `^1\n$`, ``},
		{"clreg put key value", 1, ``, `must start with /`},
		{"clreg put /sys/x y", 1, ``, `belongs to ssi`},
		{`clreg put -q --lease "$(clreg lease grant 1h)" /cmd/leased x && clreg get /cmd/leased`, 0, `^x\n$`, ``},
		{"ssi kill -0 $(cat /run/sleeper)", 0, ``, ``},
		{"ssi kill -0 99999", 1, ``, `99999.*No such process`},
		{"onnode 2 ssi kill $(cat /run/sleeper)", 0, ``, ``},
		{"clusternode_setstate 3 SHUTDOWN --cause 'a test' && clusternode_getstate 3", 0, `^SHUTDOWN\n$`, ``},
		{"onall uname -n | sort", 0, `^node1: node1\nnode2: node2\n$`, ``},
		{"clusternode_avail 3", 1, ``, ``},
		{"cluster history", 0, `UP -> SHUTDOWN +a test\n`, ``},
		{"clusternode_setstate 3 UP && clusternode_getstate 3", 0, `^UP\n$`, ``},
		{"clusternode_setstate 3 NEVERUP", 1, ``, `^clusternode_setstate: node 3: `},
		{"clusternode_setstate 3 nosuch", 2, ``, `nosuch`},
		{"clusternode_shutdown -h -N 3 +60 to be cancelled", 0, `^Node 3: poweroff at `, ``},
		{"clusternode_shutdown -c -N 3", 0, `^The shutdown of node 3 is cancelled`, ``},
		{"cluster token --node 9", 0, `^ssi1-\S+\n10\.85\.0\.1:1985\n`, `^Good once, until `},
		{"cluster init", 1, ``, `this machine is node 1 of cluster`},
		{"cluster force --yes", 1, ``, `can decide`},
		{"cluster revoke 77", 1, ``, `no node 77`},
		{"echo ssi1-x | cluster join node2", 1, ``, `token|node 1`},
	}
	for _, w := range reading {
		c.check(nil, w)
	}

	// A user reads the same.
	for _, w := range reading {
		if !strings.Contains(w.line, "doctor") { // it warns of what it may not examine
			c.check(nobody, w)
		}
	}
	for _, line := range []string{
		"clreg put /x y", "clreg cas /x 0 y", "clreg del /x", "clreg lease grant 1h", "cluster token", "cluster revoke 2",
		"cluster force --yes", "cluster rejoin", "clusternode_setstate 2 SHUTDOWN", "clusternode_shutdown -h now",
	} {
		c.check(nobody, typed{line, 1, ``, `only root may do this\n$`})
	}
	for _, line := range []string{"ssi kill -0 $(cat /run/sleeper)", "ssi kill --node 2 1"} {
		c.check(nobody, typed{line, 1, ``, `Operation not permitted\n$`})
	}

	for _, w := range writing {
		c.check(nil, w)
	}
	c.awaitProcesses(1, "sleep 1000", 0)
}

// TestCommandsJSON: what --json prints is one JSON document.
func TestCommandsJSON(t *testing.T) {
	c := commandLab(t)
	c.do(1, "clreg", "put", "/j", "x")
	for _, line := range []string{
		"cluster --json", "cluster history --json", "cluster token --json", "clusternode_getstate 2 --json", "loads --json",
		"ssi ps --json", "ssi ps -e --json", "ssi ps --node 2 --json", "where_pid --json 1", "clreg get --json /j", "clreg ls --json", "ssi version --json", "ssi doctor --json",
	} {
		got := c.run(1, "", "sh", "-c", line)
		var v any
		if err := json.Unmarshal([]byte(got.stdout), &v); err != nil {
			t.Errorf("%s: status %d, %v: %q", line, got.status, err, got.stdout)
		}
	}
}

// TestHelp: every command explains itself, also where no daemon runs, and says
// nothing on stderr.
func TestHelp(t *testing.T) {
	c := start(t, 1)
	overview := c.do(1, "ssi", "help")
	names := regexp.MustCompile(`(?m)^  ([a-z_]+) {2,}`).FindAllStringSubmatch(overview, -1)
	if len(names) < 25 {
		t.Errorf("the overview names %d commands:\n%s", len(names), overview)
	}
	for _, m := range names {
		got := c.run(1, "", "env", "SSI_SOCKET=/nowhere", "ssi", "help", m[1])
		if got.status != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, m[1]+" - ") {
			t.Errorf("ssi help %s: %+v", m[1], got)
		}
	}
	for _, line := range []string{"cluster", "onnode 1 true", "onall true", "loads", "ssi ps", "clreg get /x", "where_pid 1", "ssi kill -0 99999"} {
		got := c.run(1, "", "sh", "-c", "SSI_SOCKET=/nowhere "+line)
		if got.status == 0 || !strings.Contains(got.stderr, "no ssi daemon on this machine") {
			t.Errorf("%s without a daemon: %+v", line, got)
		}
		oneLine(t, line+" without a daemon", got.stderr)
	}
}

// TestWatches: what follows the cluster tells what happens, line by line.
func TestWatches(t *testing.T) {
	c := start(t, 2)
	c.do(2, "sh", "-c", "clreg watch /w >/run/keys & cluster events >/run/events & cluster events --json >/run/events.json & true")
	c.eventually("the watches run", func() bool {
		out, _ := c.try(2, "sh", "-c", "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c 'socket:' ; wc -l </run/keys")
		return strings.HasSuffix(strings.TrimSpace(out), "\n1")
	})
	c.do(1, "clreg", "put", "/w/a", "value")
	c.do(1, "clreg", "put", "/elsewhere", "value")
	c.do(1, "clreg", "del", "/w/a")
	c.eventually("both changes", func() bool {
		out := c.do(2, "tail", "-n", "+2", "/run/keys")
		return regexp.MustCompile(`^\d+ put /w/a value\n\d+ del /w/a\n$`).MatchString(out)
	})
	for _, state := range []string{"SHUTDOWN", "UP"} { // the first may come before the watch began
		c.do(1, "clusternode_setstate", "1", state)
	}
	c.eventually("the transitions", func() bool {
		return strings.Contains(c.do(2, "cat", "/run/events"), "node 1 SHUTDOWN -> UP") &&
			strings.Contains(c.do(2, "cat", "/run/events.json"), `"SHUTDOWN"`)
	})
}

// TestUserRunsElsewhere: a command on another node has what its user has here.
func TestUserRunsElsewhere(t *testing.T) {
	c := start(t, 2)
	script := `id -u; id -g; id -G; umask; ulimit -Sn; ulimit -c; nice; pwd; printf '%s\n' "$WORDS"; test -t 0; echo $?`
	setting := `umask 027; ulimit -Sn 77; ulimit -c 0; cd /usr/share; export WORDS='two words
and a line'; `
	user := []string{"setpriv", "--reuid", "1234", "--regid", "2345", "--groups", "2345,7,4000000", "nice", "-n", "7"}
	here := c.run(1, "", append(user, "sh", "-c", setting+script)...)
	there := c.run(1, "", append(user, "sh", "-c", setting+`onnode 2 sh -c '`+strings.ReplaceAll(script, "'", `'\''`)+`'; exit $?`)...) // without exit, sh would become onnode
	if here != there || here.status != 0 || !strings.HasPrefix(here.stdout, "1234\n2345\n2345 7 4000000\n0027\n77\n0\n7\n/usr/share\ntwo words\n") {
		t.Errorf("here:\n%+v\nthere:\n%+v", here, there)
	}
	// What a user must not be able to do here, it cannot do there.
	got := c.run(1, "", slices.Concat(nobody, []string{"onnode", "2", "sh", "-c", "cat /var/lib/ssi/node.key /etc/shadow; kill -0 1; ssi kill -0 1; echo x >/etc/x; id -u"})...)
	if got.stdout != "65534\n" || strings.Count(got.stderr, "denied")+strings.Count(got.stderr, "not permitted") != 5 {
		t.Errorf("as nobody on node 2: %+v", got)
	}
	for _, n := range []id.Node{1, 2} {
		got := c.run(1, "", "sh", "-c", fmt.Sprintf("mkdir -p /tmp/only-here && cd /tmp/only-here && onnode %d pwd", n))
		switch {
		case n == 1 && got.stdout != "/tmp/only-here\n":
			t.Errorf("a directory on the same node: %+v", got)
		case n == 2 && (got.status != 126 || !strings.Contains(got.stderr, "/tmp/only-here")):
			t.Errorf("a directory that the other node lacks: %+v", got)
		}
	}
}
