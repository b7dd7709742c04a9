package test

import (
	"strings"
	"testing"

	"ssi/internal/api"
	"ssi/lab"
)

// oneLine fails the test if a message is not exactly one line.
func oneLine(t *testing.T, what, out string) {
	t.Helper()
	if out = strings.TrimSpace(out); out == "" || strings.Contains(out, "\n") {
		t.Errorf("%s: want one line, got %q", what, out)
	}
}

// TestNoSuchNode: commands for a node that never was, and one that is off.
func TestNoSuchNode(t *testing.T) {
	c := start(t, 3)
	for _, test := range []struct {
		status int
		says   string
		args   []string
	}{
		{255, "node 99", []string{"onnode", "99", "true"}},
		{2, "128", []string{"onnode", "128", "true"}},
		{1, "nosuch", []string{"clusternode_getstate", "nosuch"}},
		{1, "99", []string{"clusternode_setstate", "99", "SHUTDOWN"}},
		{1, "node 1", []string{"clusternode_setstate", "1", "DOWN"}},
	} {
		out, status := c.try(1, test.args...)
		if status != test.status || !strings.Contains(out, test.says) {
			t.Errorf("%v: status %d and %q, want %d and a line with %q", test.args, status, out, test.status, test.says)
		}
	}
	c.ok(c.Crash(c.ctx(), 3))
	c.state(1, 3, api.Down)
	out, status := c.try(1, "onnode", "3", "true")
	if status != 255 || !strings.Contains(out, "node 3") {
		t.Errorf("onnode of a dead node: status %d, %q", status, out)
	}
	oneLine(t, "onnode of a dead node", out)
}

// TestFullDisk fills the disk of a voter: it says so and takes no part, the others
// go on, and when there is room again it comes back with everything.
func TestFullDisk(t *testing.T) {
	c := start(t, 3, func(o *lab.Options) { o.Disk = 64 << 20 })
	c.do(3, "sh", "-c", "dd if=/dev/zero of=/var/filler bs=64k 2>/dev/null; dd if=/dev/zero of=/var/filler2 bs=1 2>/dev/null; sync; true")
	value := strings.Repeat("x", 4096)
	for i := range 600 { // more than what a segment has in store
		if i%100 == 0 {
			s, err := call[api.ClusterStatus](c.ctx(), c, 1, api.MethodClusterStatus, api.StatusParams{})
			c.ok(err)
			if info, _ := s.Find(3); info.State == api.Down {
				break
			}
		}
		_, err := call[api.RegistryWriteReply](c.ctx(), c, 1, api.MethodRegistryPut, api.RegistryPutParams{Key: "/full", Value: []byte(value)})
		c.ok(err)
	}
	c.do(1, "clreg", "put", "/while-full", "written")
	c.state(1, 1, api.Up)
	c.do(3, "rm", "-f", "/var/filler", "/var/filler2")
	c.state(1, 3, api.Up)
	c.await(3, "serving", func(s *api.ClusterStatus) bool { return s.Serving })
	if got := c.do(3, "clreg", "get", "/while-full"); got != "written\n" {
		t.Errorf("node 3 has room again and reads %q", got)
	}
}

// TestDamagedLog flips bytes in the log of a voter: it refuses to start, says
// why and what to do, never starts empty, and `cluster rejoin` mends it.
func TestDamagedLog(t *testing.T) {
	c := start(t, 3)
	c.do(1, "clreg", "put", "/a", "1")
	c.do(3, "sh", "-c", `for f in /var/lib/ssi/raft/r-*/log-*; do printf 'damaged!' | dd of=$f bs=1 seek=700 conv=notrunc 2>/dev/null; done; pkill -9 -xf 'ssi node'`)
	c.state(1, 3, api.Down)
	c.await(1, "the reason", func(*api.ClusterStatus) bool {
		out, status := c.try(3, "clusternode_num")
		return status == 1 && strings.Contains(out, "log") && strings.Contains(out, "cluster rejoin")
	})
	out, _ := c.try(3, "clusternode_num")
	oneLine(t, "a damaged log", out)
	c.do(3, "cluster", "rejoin")
	c.state(1, 3, api.Up)
	if got := c.do(3, "clreg", "get", "/a"); got != "1\n" {
		t.Errorf("node 3 rejoined and reads %q", got)
	}
}

// TestGarbage throws what comes by on a network at the port: scans, nonsense,
// half a handshake. The cluster does not care, and its log does not fill.
func TestGarbage(t *testing.T) {
	c := start(t, 2)
	c.do(2, "bash", "-c", `for i in $(seq 60); do
		exec 3<>/dev/tcp/10.85.0.1/1985; head -c 300 /dev/urandom >&3; exec 3>&-
		exec 3<>/dev/tcp/10.85.0.1/1985; printf 'GET / HTTP/1.0\r\n\r\n' >&3; exec 3>&-
		exec 3<>/dev/tcp/10.85.0.1/1985; exec 3>&-
	done; true`)
	c.do(1, "onnode", "2", "true")
	c.do(2, "clreg", "put", "/after", "garbage")
	var b strings.Builder
	c.ok(c.Logs(c.ctx(), 1, false, &b))
	if n := strings.Count(b.String(), "10.85.0.2:"); n > 20 {
		t.Errorf("180 connections of a stranger left %d lines in the log", n)
	}
}
