package test

import (
	"regexp"
	"strings"
	"testing"

	"ssi/internal/api"
)

// TestLinksOfNodes: every node sees the links of the others, and in
// /proc/cluster/events when one went down and came up.
func TestLinksOfNodes(t *testing.T) {
	c := start(t, 2, profile("lan"))
	link := regexp.MustCompile(`(?m)^2 +(\S+) +up +\S+ +10\.\S+ +\d+ +\d+ +interconnect$`).FindStringSubmatch(c.do(1, "cluster", "-v"))
	if link == nil {
		t.Fatalf("node 1 does not see the link of node 2:\n%s", c.do(1, "cluster", "-v"))
	}
	if out := c.do(1, "cluster", "--json"); !strings.Contains(out, `"carrier_losses"`) {
		t.Errorf("cluster --json has no links:\n%s", out)
	}
	epoch := c.await(1, "a status", func(*api.ClusterStatus) bool { return true }).Transition
	c.do(2, "sh", "-c", "ip link set "+link[1]+" down; sleep 0.3; ip link set "+link[1]+" up")
	events := ""
	defer func() { t.Log(events) }()
	c.eventually("node 1 learns of the link", func() bool {
		var status int
		events, status = c.try(1, "onnode", "1", "cat", "/proc/cluster/events")
		return status == 0 && regexp.MustCompile(`(?m)^- +\S+ +2 +up +down +link `+link[1]+`\r?\n- +\S+ +2 +down +up +link `+link[1]+`\r?\n`).MatchString(events)
	})
	if s := c.await(1, "a status", func(*api.ClusterStatus) bool { return true }); s.Transition != epoch {
		t.Errorf("transition %d, before it was %d", s.Transition, epoch)
	}
}
