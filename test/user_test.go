package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ssi/internal/id"
	"ssi/lab"
)

// nobody runs a command as the user and group 65534, without others.
var nobody = []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}

// result is what a command left.
type result struct {
	stdout, stderr string
	status         int
}

// run runs a command at the console of a node with this on its standard input,
// and keeps its two outputs apart.
func (c *cluster) run(n id.Node, stdin string, args ...string) result {
	c.t.Helper()
	return c.enter(n, true, stdin, args...)
}

// login is run for a process of a user, in the cluster's process space.
func (c *cluster) login(n id.Node, stdin string, args ...string) result {
	c.t.Helper()
	return c.enter(n, false, stdin, args...)
}

func (c *cluster) enter(n id.Node, console bool, stdin string, args ...string) result {
	c.t.Helper()
	dir := c.t.TempDir()
	in := file(c.t, filepath.Join(dir, "in"), stdin)
	out, errs := file(c.t, filepath.Join(dir, "out"), ""), file(c.t, filepath.Join(dir, "err"), "")
	defer func() { _, _, _ = in.Close(), out.Close(), errs.Close() }()
	status, err := c.Run(c.ctx(), n, lab.Cmd{Args: args, Stdin: in, Stdout: out, Stderr: errs, Dir: "/", Console: console})
	if err != nil {
		c.t.Fatalf("node %d: %s: %v", n, strings.Join(args, " "), err)
	}
	return result{content(c.t, out), content(c.t, errs), status}
}

// file makes a file with this content, to be read from its beginning.
func file(t *testing.T, path, text string) *os.File {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t *testing.T, f *os.File) string {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eventually waits until ok.
func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			c.t.Fatalf("waited in vain for: %s", what)
		case <-tick.C:
		}
	}
}

// running waits until node n has this many processes of exactly this command
// line.
func (c *cluster) running(n id.Node, line string, want int) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%d processes %q on node %d", want, line, n), func() bool {
		out, _ := c.try(n, "pgrep", "-c", "-xf", line)
		return strings.TrimSpace(out) == fmt.Sprint(want)
	})
}
