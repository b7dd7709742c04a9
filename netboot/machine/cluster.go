package machine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ssi/cluster"
	"ssi/cluster/pki"
	"ssi/internal/api"
	"ssi/internal/id"
)

// keyNumbers is where the cluster keeps the node numbers that it gave out
// (cluster/keys.go); the founder's is there from the start.
const keyNumbers = "/sys/number"

// Of is a running cluster as the table needs it.
func Of(c *cluster.Cluster) Cluster { return running{c} }

type running struct{ c *cluster.Cluster }

func (r running) Self() id.Node { return r.c.Self() }

func (r running) State(n id.Node) api.State {
	return api.State(r.c.Members().Load().Get(n).State.String())
}

func (r running) Given(n id.Node) bool {
	if r.c.Members().Load().Get(n).Incarnation != 0 {
		return true
	}
	_, err := r.c.Registry().Stale().Get(fmt.Sprintf("%s/%d", keyNumbers, n))
	return err == nil
}

func (r running) Credential(ctx context.Context, n id.Node, ttl time.Duration) ([]byte, error) {
	t, addrs, err := r.c.NewToken(ctx, n, pki.RoleNode, ttl)
	if err != nil {
		return nil, err
	}
	return []byte(t.Secret() + "\n" + strings.Join(addrs, "\n") + "\n"), nil
}

func (r running) Revoke(ctx context.Context, n id.Node, cause string) error {
	return r.c.Revoke(ctx, n, cause)
}
