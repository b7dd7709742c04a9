package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/applet"
	"ssi/cluster"
	"ssi/internal/config"
	"ssi/internal/keeper"
	"ssi/netboot/machine"
)

// deniedPause is how long a machine that the cluster refuses waits before it asks
// again.
const deniedPause = time.Minute

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
		return n.askAdmission(ctx, url)
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

// askAdmission joins the cluster that booted this machine, as long as that takes.
// A credential that was not used in time is replaced by the cluster.
func (n *nodeRole) askAdmission(ctx context.Context, url string) error {
	mac, err := n.bootMAC(ctx, url)
	if err != nil {
		return err
	}
	n.reports = newReporter(n.log, url, mac)
	say := func(text string) {
		n.log.Info("admission", "by", url, "machine", mac, "what", text)
		n.reports.say("admission", text)
	}
	for pause := joinPause; ; pause = min(pause*3/2, maxJoinPause) {
		n.setClock(ctx, url) // certificates have dates; it is done once
		text, err := machine.Join(ctx, filepath.Join(runDir, "admission"), url, mac, say)
		if err == nil {
			var j config.Join
			if j, err = config.ParseJoin(url, string(text)); err == nil {
				err = n.joinWith(ctx, j)
			}
		}
		switch {
		case err == nil:
			n.takeName()
			n.reports.say("joined", "it has its certificate")
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, machine.ErrBootAgain):
			n.log.Warn("this machine boots again", "op", "admission", "err", err)
			if err := n.keep.Shutdown(keeper.Reboot); err != nil {
				return err
			}
			<-ctx.Done() // PID 1 ends this process first
			return context.Cause(ctx)
		case errors.Is(err, machine.ErrDenied):
			pause = max(pause, deniedPause)
		}
		if now, notFound := machine.Find(ctx, mac); notFound == nil && now != url { // init has moved
			url = now
		}
		n.log.Warn("this machine is no node yet", "op", "admission", "by", url, "err", err, "again_in", pause)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// reporter tells the node that booted this machine how far it is. It blocks
// nobody: each report is tried once, and one that cannot keep up is left out.
type reporter struct {
	queue  chan [2]string // phase and text
	cancel context.CancelFunc
	done   chan struct{}
}

// maxReports is how many reports may wait for the one that is under way.
const maxReports = 8

func newReporter(log *slog.Logger, url, mac string) *reporter {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reporter{queue: make(chan [2]string, maxReports), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for {
			select {
			case <-ctx.Done():
				return
			case what := <-r.queue:
				if err := machine.Report(ctx, url, mac, what[0], what[1]); err != nil && ctx.Err() == nil {
					log.Warn("the phase of the boot is not reported", "op", "report", "by", url, "err", err)
				}
			}
		}
	}()
	return r
}

func (r *reporter) say(phase, text string) {
	select {
	case r.queue <- [2]string{phase, text}:
	default:
	}
}

// close ends what is under way and waits for that.
func (r *reporter) close() {
	if r == nil {
		return
	}
	r.cancel()
	<-r.done
}

// takeName gives a machine that was booted without a host name that of its node.
func (n *nodeRole) takeName() {
	if host, err := os.Hostname(); err == nil && host != "" && host != "(none)" && host != "localhost" {
		return
	}
	name, err := nodeName(n.cfg)
	if err == nil {
		err = unix.Sethostname([]byte(name))
	}
	if err != nil {
		n.log.Warn("host name", "op", "admission", "err", err)
	}
}

// join uses up the join file.
func (n *nodeRole) join(ctx context.Context, j config.Join) error {
	if err := n.joinWith(ctx, j); err != nil {
		return err
	}
	return os.Remove(n.cfg.JoinFile)
}

func (n *nodeRole) joinWith(ctx context.Context, j config.Join) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	ident, err := join(ctx, n.cfg, applet.JoinOptions{Token: j.Token, Addrs: j.Addrs}, n.version)
	if err != nil {
		return err
	}
	n.log.Info("joined", "cluster", ident.Name, "node", ident.Node)
	return nil
}
