package core

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ssi/internal/id"
)

// stuck reports that nothing can be decided, for longer than an election takes:
// whoever asks is told at once, instead of waiting for what will not come by itself.
func (c *Core) stuck() bool {
	return c.lead == nil && c.leaderNode == 0 && c.started && c.now-c.leaderless > 2*c.t.Election
}

// why explains to an operator that, and why, nothing can be decided.
func (c *Core) why() string {
	if c.leaderNode != 0 {
		return fmt.Sprintf("the leader, node %d, has no quorum or does not answer", c.leaderNode)
	}
	voters := c.voters()
	since := (c.now - c.leaderless).Round(time.Second)
	silent, lost := c.missing()
	switch {
	case len(voters) == 0:
		return fmt.Sprintf("this node has found no member of the cluster for %v; it asks nodes %v", since, c.cfg.Contacts)
	case len(voters) == 2 && c.isVoter():
		other := voters[0]
		if other == c.raftID {
			other = voters[1]
		}
		return fmt.Sprintf("this node cannot decide alone: node %d, the only other voter, is silent for %v, and of two voters both are needed. "+
			"Bring node %d back; or, if it is surely switched off, run `ssi cluster force` here; "+
			"a third node or a tie-breaker (`ssi cluster witness`) avoids this", nodeOf(other), since, nodeOf(other))
	case len(silent)+len(lost) == 0:
		return fmt.Sprintf("no leader for %v: more than half of the voters, %s, must reach each other; check the network between them", since, nodesText(c.voterNodes()))
	}
	text := fmt.Sprintf("no leader for %v: more than half of the voters, %s, are needed", since, nodesText(c.voterNodes()))
	if len(lost) > 0 {
		text += fmt.Sprintf("; %s lost the copy of the cluster's state", nodesText(lost))
	}
	if len(silent) == 0 {
		return text + "; run `ssi cluster force` on one that has it"
	}
	return text + fmt.Sprintf("; %s %s not answer: bring %s back, or, if surely switched off, run `ssi cluster force` on one of the others",
		nodesText(silent), plural(silent, "does", "do"), plural(silent, "it", "them"))
}

// missing is the voters that were not heard of since there is no leader, or for
// two node leases, and those that answer but have lost their logs.
func (c *Core) missing() (silent, lost []id.Node) {
	all := c.lostVoters()
	for _, n := range c.voterNodes() {
		switch met := c.met[n]; {
		case n == c.cfg.Self:
		case met <= c.leaderless || c.now-met > 2*c.t.NodeLease:
			silent = append(silent, n)
		case slices.Contains(all, n):
			lost = append(lost, n)
		}
	}
	return silent, lost
}

// voterNodes is the nodes that vote, ascending.
func (c *Core) voterNodes() []id.Node {
	var nodes []id.Node
	for _, x := range c.voters() {
		nodes = append(nodes, nodeOf(x))
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// nodesText is "node 1" or "nodes 1, 2".
func nodesText(nodes []id.Node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, n.String())
	}
	return plural(nodes, "node ", "nodes ") + strings.Join(names, ", ")
}

func plural(nodes []id.Node, one, many string) string {
	if len(nodes) == 1 {
		return one
	}
	return many
}
