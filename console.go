package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"ssi/cluster"
	"ssi/init/boot"
	"ssi/internal/api"
	"ssi/internal/config"
	"ssi/internal/keeper"
	"ssi/vproc/gate"
	"ssi/vproc/procfs"
)

// loginSpace lets logins on the console of this machine into the process space.
func loginSpace() boot.Space {
	cfg, err := loadConfig()
	if err != nil { // the node daemon says so, and cannot run
		cfg = config.Default()
	}
	return boot.Space{
		Ready: func(ctx context.Context) (bool, string) { return serves(ctx, cfg.StateDir) },
		Enter: func(keep *keeper.Client) error { return enterSpace(cfg.StateDir, keep) },
	}
}

// serves reports whether this machine is a node that is UP, as its daemon says, and
// why not if it is a node.
func serves(ctx context.Context, stateDir string) (ready bool, why string) {
	if _, err := cluster.ReadIdentity(stateDir); errors.Is(err, fs.ErrNotExist) {
		return false, ""
	}
	c, err := api.DialPath(ctx, api.Socket)
	if err != nil {
		return false, fmt.Sprintf("the node daemon does not run: %v", err)
	}
	defer func() { _ = c.Close() }()
	var status api.ClusterStatus
	if err := c.Call(ctx, api.MethodClusterStatus, api.StatusParams{}, &status); err != nil {
		return false, fmt.Sprintf("the node daemon does not serve: %v", err)
	}
	i := slices.IndexFunc(status.Nodes, func(n api.NodeInfo) bool { return n.Node == status.Self })
	if i < 0 || status.Nodes[i].State != api.Up && status.Nodes[i].State != api.Shutdown {
		return false, "this node is not UP"
	}
	return true, ""
}

// enterSpace makes of the calling thread what the role spawn is, whose processes are
// in the process space: it sees the clusterwide /proc, and its calls go through the
// gate. It is not in the cgroup of those that end when the node loses the cluster: who
// is at the console is needed then.
func enterSpace(stateDir string, keep *keeper.Client) error {
	ident, err := cluster.ReadIdentity(stateDir)
	if err != nil {
		return err
	}
	if err := procfs.Setup(roleLog("login", "info"), keep); err != nil {
		return err
	}
	listener, err := gate.Install(ident.Node)
	if err != nil {
		return err
	}
	return keepListener(keep, listener)
}
