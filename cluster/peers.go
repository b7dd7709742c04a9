package cluster

import (
	"context"
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
	Addrs  map[id.Node]string   `json:"addrs"`
	Others map[id.Node][]string `json:"others,omitempty"` // more addresses of those that have several
}

func (f peerFile) equal(o peerFile) bool {
	return maps.Equal(f.Addrs, o.Addrs) && maps.EqualFunc(f.Others, o.Others, slices.Equal)
}

// readPeers reads the addresses known last; a file that is missing or damaged
// only costs the time to be found by the others.
func (c *Cluster) readPeers() peerFile {
	var f peerFile
	if err := readJSON(filepath.Join(c.cfg.Dir, filePeers), &f); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("the addresses of the other nodes are lost", "err", err)
	}
	delete(f.Addrs, c.self)
	return f
}

// contacts are the nodes to ask while nothing else is known.
func (c *Cluster) contacts() []id.Node { return slices.Sorted(maps.Keys(c.addrs.Addrs)) }

// savePeers remembers the addresses of each view until ctx ends. It is not done
// in the loop, which must not wait for a disk that it can do without.
func (c *Cluster) savePeers(ctx context.Context, saved peerFile) {
	for {
		view, changed := c.members.Get()
		if addrs := addrsOf(view, c.self); len(view.Nodes) > 0 && !saved.equal(addrs) {
			if err := writeJSON(filepath.Join(c.cfg.Dir, filePeers), 0o644, addrs); err != nil {
				c.log.Warn("the addresses of the other nodes were not saved", "err", err)
			} else {
				saved = addrs
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// addrsOf is the addresses of the nodes of a view but one.
func addrsOf(v *member.View, but id.Node) peerFile {
	f := peerFile{Addrs: map[id.Node]string{}, Others: map[id.Node][]string{}}
	for _, n := range v.Nodes {
		if n.Node == but {
			continue
		}
		f.Addrs[n.Node] = n.Info.Addr
		if len(n.Info.Others) > 0 {
			f.Others[n.Node] = n.Info.Others
		}
	}
	return f
}

// setPeers tells the transport what the membership says. Where it says nothing the
// addresses known at the start count: a node that catches up sees a membership of
// the past, and must still reach who leads now.
func (c *Cluster) setPeers(v *member.View) {
	peers := map[id.Node]ics.Peer{}
	for n, addr := range c.addrs.Addrs {
		peers[n] = ics.Peer{Addr: addr, Others: c.addrs.Others[n], Cause: "it is not known yet whether it is a member"}
	}
	for _, n := range v.Nodes {
		peers[n.Node] = ics.Peer{Addr: n.Info.Addr, Others: n.Info.Others, Member: n.State.Alive(), Gone: !n.State.Alive() && n.State != member.NeverUp,
			Incarnation: n.Incarnation, Cause: n.Cause}
	}
	c.transport.SetView(v.Epoch, peers)
}
