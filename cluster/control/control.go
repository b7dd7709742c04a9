// Package control serves the methods of the local socket that concern the
// cluster and its registry (the types are in internal/api): what `cluster`,
// `clusternode_*` and `clreg` ask.
//
// Reading is for everyone, except the keys that hold secrets; changing is for
// root. Every call ends by callTimeout; streams end with their reader.
//
// The package has one goroutine of its own, Orders.Run, which carries out
// shutdowns of this node. It keeps no state: shutdown orders are in the registry.
package control

import (
	"context"
	"time"

	"ssi/cluster"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// callTimeout bounds what a call may wait for: below the patience of the
// commands, so that they get the reason.
const callTimeout = 15 * time.Second

// Control is the methods of one node.
type Control struct {
	Cluster *cluster.Cluster
	// Loads asks the nodes for their load, in hundredths of a CPU; those that do
	// not answer are left out. It must end with ctx.
	Loads func(ctx context.Context) map[id.Node]int
	// Reports asks the nodes what they tell of their machines; those that do not
	// answer are left out. It must end with ctx.
	Reports func(ctx context.Context) map[id.Node]api.MachineReport
	// Strays is how often PIDs outside of this node's window were given out.
	Strays func() uint64
	// Time is what the clock of this node is worth. It must not wait.
	Time func() api.TimeStatus
	// Machines is the table of machines, as this node knows it. It must not wait.
	Machines func() []api.MachineInfo
}

// Register adds the methods to the server of the local socket.
func (c *Control) Register(s *api.Server) {
	for _, m := range c.methods() {
		s.Handle(m.name, limited(m.root, m.f))
	}
	s.Handle(api.MethodClusterWatch, c.watch)
	s.Handle(api.MethodRegistryWatch, c.watchRegistry)
}

type method struct {
	name string
	root bool // only root may call it
	f    api.Handler
}

// methods is all that answer once.
func (c *Control) methods() []method {
	return []method{
		{api.MethodClusterStatus, false, c.status},
		{api.MethodClusterHistory, false, c.history},
		{api.MethodClusterSetState, true, c.setState},
		{api.MethodClusterShutdown, true, c.shutdown},
		{api.MethodClusterToken, true, c.token},
		{api.MethodClusterRevoke, true, c.revoke},
		{api.MethodClusterForce, true, c.force},
		{api.MethodClusterRejoin, true, c.rejoin},
		{api.MethodRegistryGet, false, c.get},
		{api.MethodRegistryList, false, c.list},
		{api.MethodRegistryPut, true, c.put},
		{api.MethodRegistryCAS, true, c.cas},
		{api.MethodRegistryDelete, true, c.del},
		{api.MethodRegistryGrant, true, c.grant},
		{api.MethodRegistryRenew, true, c.renew},
		{api.MethodRegistryRevoke, true, c.revokeLease},
	}
}

// limited adds the deadline and, with root, the question who calls.
func limited(root bool, f api.Handler) api.Handler {
	return func(ctx context.Context, call *api.Call) error {
		if root && !call.Peer.Root() {
			return errno.New(errno.Permission, call.Method, 0, "only root may do this")
		}
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return f(ctx, call)
	}
}

// params decodes the parameters of a call.
func params[P any](call *api.Call) (P, error) {
	var p P
	err := call.Params(&p)
	return p, err
}
