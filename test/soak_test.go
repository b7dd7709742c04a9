package test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ssi/internal/id"
	"ssi/lab"
)

const (
	// soakOperations is how many rounds of calls TestSoak does in make test; the
	// variable SSI_SOAK of the environment gives another number.
	soakOperations = 500
	// soakKills is how many times a role of each node is killed: PID 1 waits longer
	// and longer before it starts one that ends again and again, and a node whose
	// daemon is not back within the lease leaves the cluster.
	soakKills = 2
	// What a role may take more than after the first calls: connections that come and
	// go, callers that the gate knows (keptCallers), and memory in KiB that the
	// garbage collector has not had yet.
	spareFiles  = keptCallers + keptSockets
	spareMemory = 24 << 10
)

// size is what a process takes.
type size struct{ files, memory int }

// roles are the sizes of PID 1 and the roles of a node, by name.
func (c *cluster) roles(n id.Node) map[string]size {
	c.t.Helper()
	out := c.do(n, "sh", "-c", `for p in 1 $(pgrep -P 1 -x ssi); do
		echo $(tr '\0' ' ' </proc/$p/cmdline | cut -d ' ' -f 2) $(ls /proc/$p/fd | wc -l) $(awk '/^VmRSS/ {print $2}' /proc/$p/status); done`)
	roles := map[string]size{}
	for line := range strings.Lines(out) {
		var name string
		var s size
		if _, err := fmt.Sscan(line, &name, &s.files, &s.memory); err != nil {
			c.t.Fatalf("node %d: %q: %v", n, line, err)
		}
		roles[name] = s
	}
	for _, name := range []string{"init", "node", "mount", "spawn"} {
		if roles[name].files == 0 {
			c.t.Fatalf("node %d has no role %s: %s", n, name, out)
		}
	}
	return roles
}

// left is the files below /run/ssi of a node.
func (c *cluster) left(n id.Node) []string {
	c.t.Helper()
	return strings.Fields(c.do(n, "sh", "-c", "find /run/ssi | sort"))
}

// soak does operations on a process of node 2; none fails.
func (c *cluster) soak(program, pid string, operations int) {
	c.t.Helper()
	if got := c.login(1, "", program, pid, fmt.Sprint(operations)); got.status != 0 || got.stdout+got.stderr != "" {
		c.t.Errorf("status %d, %s%s", got.status, got.stderr, got.stdout[:min(len(got.stdout), 2000)])
	}
}

// TestSoak: thousands of calls and reads across nodes leave nothing behind, in no role
// and no directory, also when the roles are killed meanwhile.
func TestSoak(t *testing.T) {
	operations := soakOperations
	if s := os.Getenv("SSI_SOAK"); s != "" {
		var err error
		if operations, err = strconv.Atoi(s); err != nil || operations < 1 {
			t.Fatalf("SSI_SOAK is %q, want a number of operations", s)
		}
	}
	dir := enterable(t)
	program := filepath.Join(dir, "soak")
	compile(t, program, "../testdata/soak/soak.c")
	c := start(t, 2, profile("lan"), func(o *lab.Options) { o.Share = append(o.Share, dir) })
	pid := strings.TrimSpace(c.login(2, "", "sh", "-c", "setsid sleep 4730 </dev/null >/dev/null 2>&1 & echo $!").stdout)
	c.eventually("node 1 sees it", func() bool { return c.login(1, "", "test", "-e", "/proc/"+pid).status == 0 })

	c.soak(program, pid, soakOperations)
	before := map[id.Node]map[string]size{1: c.roles(1), 2: c.roles(2)}
	files := map[id.Node][]string{1: c.left(1), 2: c.left(2)}
	c.soak(program, pid, operations)
	c.compareRoles(before, "init", "node", "mount", "spawn")

	for range soakKills {
		for n := id.Node(1); n <= 2; n++ {
			c.killNodeRole(n)
			c.soak(program, pid, operations/16+1)
			c.killRole(n, "mount")
			c.soak(program, pid, operations/16+1)
		}
	}
	c.compareRoles(before, "init", "node", "mount", "spawn")
	for n := id.Node(1); n <= 2; n++ {
		c.eventually("the files are as before", func() bool { return len(c.left(n)) <= len(files[n]) })
		for _, path := range c.left(n) {
			if !slices.Contains(files[n], path) {
				t.Logf("node %d: new file %s", n, path)
			}
		}
	}
}

// killRole ends a role of a node, and waits until there is another.
func (c *cluster) killRole(n id.Node, role string) {
	c.t.Helper()
	before := strings.TrimSpace(c.do(n, "pgrep", "-P", "1", "-xf", "ssi "+role))
	c.do(n, "kill", "-9", before)
	c.eventually("a new "+role, func() bool {
		out, status := c.try(n, "pgrep", "-P", "1", "-xf", "ssi "+role)
		return status == 0 && strings.TrimSpace(out) != before
	})
}

// compareRoles waits until the roles take no more than before, but for what is spare.
func (c *cluster) compareRoles(before map[id.Node]map[string]size, names ...string) {
	c.t.Helper()
	for _, n := range slices.Sorted(maps.Keys(before)) {
		for _, name := range names {
			was, is := before[n][name], size{}
			c.eventually(fmt.Sprintf("role %s of node %d is as small as before, %+v", name, n, was), func() bool {
				is = c.roles(n)[name]
				return is.files <= was.files+spareFiles && is.memory <= was.memory+spareMemory
			})
			c.t.Logf("node %d, %s: %d files, %d KiB; before: %d, %d", n, name, is.files, is.memory, was.files, was.memory)
		}
	}
}
