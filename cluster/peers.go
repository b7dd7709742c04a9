package cluster

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"ssi/cluster/ics"
	"ssi/cluster/member"
	"ssi/internal/id"
)

// peerFile is what is remembered of the others for the next start.
type peerFile struct {
	Addrs map[id.Node]string `json:"addrs"`
}

// readPeers reads the addresses known last; a file that is missing or damaged
// only costs the time to be found by the others.
func (c *Cluster) readPeers() map[id.Node]string {
	var f peerFile
	if err := readJSON(filepath.Join(c.cfg.Dir, filePeers), &f); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("the addresses of the other nodes are lost", "err", err)
	}
	delete(f.Addrs, c.self)
	return f.Addrs
}

// contacts are the nodes to ask while nothing else is known.
func (c *Cluster) contacts() []id.Node { return slices.Sorted(maps.Keys(c.addrs)) }

// savePeers remembers the addresses of a view if they changed.
func (c *Cluster) savePeers(v *member.View) {
	addrs := map[id.Node]string{}
	for _, n := range v.Nodes {
		if n.Node != c.self {
			addrs[n.Node] = n.Info.Addr
		}
	}
	if maps.Equal(c.addrs, addrs) {
		return
	}
	c.addrs = addrs
	if err := writeJSON(filepath.Join(c.cfg.Dir, filePeers), 0o644, peerFile{addrs}); err != nil {
		c.log.Warn("the addresses of the other nodes were not saved", "err", err)
	}
}

// setPeers tells the transport what the membership says.
func (c *Cluster) setPeers(v *member.View) {
	peers := map[id.Node]ics.Peer{}
	for n, addr := range c.addrs {
		peers[n] = ics.Peer{Addr: addr, Cause: "it is not known yet whether it is a member"}
	}
	for _, n := range v.Nodes {
		peers[n.Node] = ics.Peer{Addr: n.Info.Addr, Member: n.State.Alive(), Incarnation: n.Incarnation, Cause: n.Cause}
	}
	c.transport.SetView(v.Epoch, peers)
}
