package cluster

import (
	"context"
	"errors"
	"time"

	"ssi/cluster/registry"
	"ssi/internal/errno"
)

const (
	// leaseTick is how often the init holder looks for registry leases that ran
	// out; their shortest life is registry.MinTTL.
	leaseTick = 250 * time.Millisecond
	// noLeaseTick is the same while there are none: the first one may live longer
	// by this.
	noLeaseTick = 2 * time.Second
	// maxExpiries is how many leases end in one look.
	maxExpiries = 64
	// tokenTick is how often it forgets old tokens.
	tokenTick = time.Hour
)

// expireLeases ends the registry leases that were not renewed in time.
func (c *Cluster) expireLeases(ctx context.Context) {
	clock := registry.NewLeaseClock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(leaseTick)
		var overdue [][]byte
		errs := []error{c.run(ctx, func() {
			overdue = clock.Overdue(c.store, boottime(), maxExpiries)
			if len(c.store.Leases()) == 0 {
				timer.Reset(noLeaseTick)
			}
		})}
		for _, cmd := range overdue {
			_, err := c.Registry().Do(ctx, cmd)
			if !errno.Is(err, errno.Stale) && !errno.Is(err, errno.NotFound) { // renewed or gone meanwhile
				errs = append(errs, err)
			}
		}
		if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
			c.log.Warn("end leases of the registry", "err", err)
		}
	}
}

// oldTokens forgets the join tokens that are of no use any more.
func (c *Cluster) oldTokens(ctx context.Context) {
	every(ctx, tokenTick, func() {
		if err := c.forgetTokens(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("forget old tokens", "err", err)
		}
	})
}
