package cluster

import (
	"context"
	"crypto/ed25519"
	"time"

	"ssi/cluster/member"
	"ssi/cluster/pki"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Certificates are revoked by node: every certificate of the node that begins
// before the noted time. One that is issued later is good again.

// isRevoked is asked at every handshake.
func (c *Cluster) isRevoked(who pki.Identity) bool {
	before, revoked := c.revokedBefore(who.Node)
	return revoked && !who.NotBefore.After(before)
}

// revokedBefore is up to which beginning certificates of a node are revoked.
func (c *Cluster) revokedBefore(n id.Node) (before time.Time, revoked bool) {
	e, err := c.hub.View().Get(keyRevokedNode(n))
	if err != nil {
		return before, false
	}
	if err := before.UnmarshalText(e.Value); err != nil {
		return time.Now(), true // somebody meant them to be revoked
	}
	return before, true
}

// recheckRevoked ends connections whose certificate was revoked, when the
// registry changed.
func (c *Cluster) recheckRevoked() {
	entries, _, err := c.hub.View().List(keyRevoked, 0, "")
	if err != nil {
		return
	}
	newest := uint64(0)
	for _, e := range entries {
		newest = max(newest, e.Mod)
	}
	if c.revokedAt != newest {
		c.revokedAt = newest
		c.transport.Recheck()
	}
}

// issuer issues certificates that no revocation so far counts for, whatever the
// clocks of this node and of the one that revoked say.
type issuer struct {
	*pki.CAKey
	c *Cluster
}

// Issue is pki.CAKey.Issue.
func (i issuer) Issue(n id.Node, role pki.Role, pub ed25519.PublicKey, now time.Time) ([]byte, error) {
	if before, revoked := i.c.revokedBefore(n); revoked {
		if least := before.Add(pki.ClockTolerance + time.Second); now.Before(least) {
			now = least
		}
	}
	return i.CAKey.Issue(n, role, pub, now)
}

// Revoke withdraws the certificates of a node and takes it down if it is up.
func (c *Cluster) Revoke(ctx context.Context, n id.Node, cause string) error {
	if n == c.self {
		return errno.New(errno.Invalid, "revoke", n, "this is the node you are on; revoke it from another node")
	}
	if _, err := c.Registry().Stale().Get(keyNumber(n)); err != nil && c.members.Load().Get(n).Incarnation == 0 {
		return errno.New(errno.NotFound, "revoke", 0, "no node %d ever joined this cluster", n)
	}
	before, err := time.Now().Add(-pki.ClockTolerance).UTC().Truncate(time.Second).MarshalText()
	if err != nil {
		return err
	}
	if _, err := c.Registry().Put(ctx, true, keyRevokedNode(n), before, 0); err != nil {
		return err
	}
	if c.members.Load().Get(n).State.Alive() {
		if cause == "" {
			cause = "its certificates were revoked"
		}
		_, err = c.SetState(ctx, n, member.KCleanup, cause)
		if errno.Is(err, errno.NotFound) { // it is gone and forgotten already
			err = nil
		}
	}
	return err
}

// forgetRevoked removes a revoked node from the membership once it is DOWN, and
// with that from the voters: it cannot come back by itself, so its seat would
// only count against the quorum.
func (c *Cluster) forgetRevoked(ctx context.Context) {
	for {
		view, changed := c.members.Get()
		var again <-chan time.Time
		for _, n := range view.Nodes {
			if n.State != member.Down || !c.shutOut(n.Node) {
				continue
			}
			if _, err := c.command(ctx, member.Command{Op: member.Remove, Node: n.Node, Cause: "revoked"}); err != nil && ctx.Err() == nil {
				c.log.Warn("forget a revoked node", "node", n.Node, "err", err)
				again = time.After(retryPause)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
	}
}

// shutOut reports whether a node was revoked and not given its number anew since.
func (c *Cluster) shutOut(n id.Node) bool {
	view := c.hub.View()
	revoked, err := view.Get(keyRevokedNode(n))
	if err != nil {
		return false
	}
	given, err := view.Get(keyNumber(n))
	return err != nil || given.Mod < revoked.Mod
}
