package test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ssi/internal/api"
	"ssi/internal/id"
)

// processes is the process list of the cluster as node n tells it.
func (c *cluster) processes(n id.Node) []api.Process {
	c.t.Helper()
	client, err := c.Dial(c.ctx(), n)
	c.ok(err)
	defer func() { _ = client.Close() }()
	var list []api.Process
	c.ok(client.Stream(c.ctx(), api.ProcessList, api.ListProcesses{}, func(raw json.RawMessage) error {
		var b api.ProcessBatch
		if err := json.Unmarshal(raw, &b); err != nil {
			return err
		}
		if b.Error != "" {
			return fmt.Errorf("the list of node %d: %s", b.Node, b.Error)
		}
		list = append(list, b.Processes...)
		return nil
	}))
	return list
}

// TestPIDs: the processes of users have PIDs that say where they run, each at
// most once, and every node reaches them.
func TestPIDs(t *testing.T) {
	c := start(t, 3)
	for n := id.Node(1); n <= 3; n++ {
		for from := id.Node(1); from <= 3; from++ {
			c.do(from, "onnode", n.String(), "sh", "-c", fmt.Sprintf("setsid sleep 6%d%d </dev/null >/dev/null 2>&1 & true", n, from))
			c.running(n, fmt.Sprintf("sleep 6%d%d", n, from), 1)
		}
		c.do(n, "sh", "-c", fmt.Sprintf("setsid sleep 6%d9 </dev/null >/dev/null 2>&1 & true", n))
		c.running(n, fmt.Sprintf("sleep 6%d9", n), 1)
	}
	c.checkWindows(12)

	// A storm of tasks goes over the end of the window and stays inside: threads,
	// which the kernel numbers as it does processes, and a few processes.
	storm := `import os, threading
low, last, turns = int(os.environ["SSI_NODE"]) << 15, 0, 0
def check(number):
    global last, turns
    assert low <= number < low + 32768, (number, low)
    turns += number < last
    last = number
for i in range(5000):
    t = threading.Thread(target=lambda: check(threading.get_native_id()))
    t.start()
    t.join()
    if i % 500 == 0:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        check(pid)
print(turns)
`
	turns := 0
	for range 7 {
		out := c.do(1, "onnode", "2", "python3", "-c", storm)
		n, err := strconv.Atoi(strings.TrimSpace(out))
		if err != nil {
			t.Fatalf("the storm ended with %q", out)
		}
		turns += n
		if testing.Short() {
			break
		}
	}
	if turns == 0 && !testing.Short() {
		t.Error("35000 tasks did not go round the window of 32768")
	}
	list := c.checkWindows(12)

	// Each from a node that is not its own.
	for _, p := range list {
		from := p.Node%3 + 1
		if got := c.do(from, "where_pid", fmt.Sprint(p.PID)); got != p.Node.String()+"\n" {
			t.Errorf("where_pid %d on node %d: %q, it is on node %d", p.PID, from, got, p.Node)
		}
		c.do(from, "ssi", "kill", "-KILL", fmt.Sprint(p.PID))
		c.running(p.Node, strings.Join(p.Args, " "), 0)
	}
	c.fails(2, 1, []string{"No such process"}, "ssi", "kill", fmt.Sprint(list[0].PID))
}

// checkWindows checks all PIDs of users' processes, and returns the sleepers, of
// which there are so many.
func (c *cluster) checkWindows(sleepers int) (list []api.Process) {
	c.t.Helper()
	seen := map[id.PID]id.Node{}
	for _, p := range c.processes(1) {
		own := p.PID == 1 || len(p.Args) > 1 && p.Comm == "ssi" && slices.Contains([]string{"mount", "spawn", "node"}, p.Args[1])
		if own {
			continue
		}
		if low := id.PID(p.Node) << 15; p.PID < low || p.PID >= low+1<<15 {
			c.t.Errorf("process %d (%v) of node %d is not in the window of its node", p.PID, p.Args, p.Node)
		}
		if other, double := seen[p.PID]; double {
			c.t.Errorf("process %d is on nodes %d and %d", p.PID, other, p.Node)
		}
		seen[p.PID] = p.Node
		if p.Comm == "sleep" {
			list = append(list, p)
		}
	}
	if len(list) != sleepers {
		c.t.Errorf("%d sleepers, want %d", len(list), sleepers)
	}
	return list
}

// TestPIDsAfterCrash: a node that starts again keeps to its window.
func TestPIDsAfterCrash(t *testing.T) {
	c := start(t, 2)
	c.ok(c.Crash(c.ctx(), 2))
	c.ok(c.StartNode(context.Background(), 2))
	c.state(1, 2, api.Up)
	c.await(2, "serving", func(s *api.ClusterStatus) bool { return s.Serving })
	c.do(1, "onnode", "2", "sh", "-c", "setsid sleep 777 </dev/null >/dev/null 2>&1 & true")
	c.running(2, "sleep 777", 1)
	c.checkWindows(1)
}
