package cluster

import (
	"context"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/member"
	"ssi/cluster/pki"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Certificates are revoked by node: every certificate of the node that begins
// before the noted time. One that is issued later is good again.

// isRevoked is asked at every handshake.
func (c *Cluster) isRevoked(who pki.Identity) bool {
	e, err := c.hub.View().Get(keyRevokedNode(who.Node))
	if err != nil {
		return false
	}
	var before time.Time
	if err := before.UnmarshalText(e.Value); err != nil {
		return true // somebody meant it to be revoked
	}
	return !who.NotBefore.After(before)
}

// recheckRevoked ends connections whose certificate was revoked. It looks at
// every change of the registry only as far as to see that none was a revocation.
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
	}
	return err
}

// SetState makes a transition that an operator may make.
func (c *Cluster) SetState(ctx context.Context, n id.Node, to member.State, cause string) (id.Epoch, error) {
	return c.Command(ctx, member.Command{Op: member.SetState, Node: n, To: to, Cause: cause})
}

// Command has a command to the membership decided.
func (c *Cluster) Command(ctx context.Context, cmd member.Command) (id.Epoch, error) {
	raw, err := c.propose(ctx, core.Membership, cmd.Encode())
	if err != nil {
		return 0, err
	}
	return member.DecodeResult(raw)
}
