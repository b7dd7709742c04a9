package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ssi/applet"
	"ssi/cluster"
	"ssi/internal/config"
	"ssi/netboot/machine"
)

// admit waits until this machine is a node: until the files are there, or the
// cluster that the join file names took it in.
func (n *nodeRole) admit(ctx context.Context) error {
	_, err := cluster.ReadIdentity(n.cfg.StateDir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	wait, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		n.explain(wait, errors.New("this machine is not a node of a cluster yet: found one with `ssi cluster init`, or join one with `ssi cluster join`"))
	})
	if url := netbootedFrom(kernelParams()); url != "" && n.machine != nil {
		if err := n.askAdmission(ctx, url); err != nil {
			return err
		}
	}
	var next time.Time // of the next try to join
	for joinWait := joinPause; ; {
		j, err := config.ReadJoin(n.cfg.JoinFile)
		switch {
		case err == nil && !time.Now().Before(next):
			if err := n.join(ctx, j); err != nil {
				n.log.Warn("join", "err", err, "again_in", joinWait)
			}
			next = time.Now().Add(joinWait)
			joinWait = min(joinWait*3/2, maxJoinPause)
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
		_, err = cluster.ReadIdentity(n.cfg.StateDir)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(identityPoll):
		}
	}
}

// askAdmission gets a join file from the cluster that booted this machine, as
// long as that takes.
func (n *nodeRole) askAdmission(ctx context.Context, url string) error {
	if _, err := os.Stat(n.cfg.JoinFile); err == nil {
		return nil // got, and not used up yet
	}
	mac, err := bootMAC(n.cfg)
	if err != nil {
		return err
	}
	text, err := machine.Join(ctx, filepath.Join(runDir, "admission"), url, mac, func(text string) {
		n.log.Info("admission", "from", url, "machine", mac, "what", text)
	})
	if err != nil {
		return fmt.Errorf("admission by %s: %w", url, err)
	}
	if err := os.MkdirAll(filepath.Dir(n.cfg.JoinFile), 0o755); err != nil {
		return err
	}
	return os.WriteFile(n.cfg.JoinFile, text, 0o600)
}

// join uses up the join file.
func (n *nodeRole) join(ctx context.Context, j config.Join) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	ident, err := join(ctx, n.cfg, applet.JoinOptions{Token: j.Token, Addrs: j.Addrs}, n.version)
	if err != nil {
		return err
	}
	n.log.Info("joined", "cluster", ident.Name, "node", ident.Node)
	return os.Remove(n.cfg.JoinFile)
}
