package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/vproc/rexec"
)

// offWait is how long a command whose node's daemon went away waits for the news
// that the whole node went off.
const offWait = time.Second

// inside is the root directory of node n as this process sees it; the node must
// be on, or paused if that is no matter.
func (l *Lab) inside(ctx context.Context, n id.Node, paused bool) (string, error) {
	st, err := l.Status(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range st.Nodes {
		switch {
		case m.Node != n:
		case st.VM:
			return "", errno.New(errno.Invalid, "", n, "it is a machine, whose files and sockets cannot be reached from here; run commands on it with `ssi lab%s exec %d CMD`", nameFlag(l.Name), n)
		case m.PID > 0 && (m.State == On || m.State == Paused && paused):
			return fmt.Sprintf("/proc/%d/root/proc/%d/root", st.PID, m.PID), nil
		default:
			return "", errno.New(errno.Unavailable, "", n, "it is %s", m.State)
		}
	}
	return "", errno.New(errno.NotFound, "", n, "there is no such node: lab %q has %d", l.Name, len(st.Nodes))
}

// login runs a command as a login on the node does: the node's own daemon is
// asked for it.
func (l *Lab) login(ctx context.Context, n id.Node, c *Cmd, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	root, err := l.inside(ctx, n, false)
	if err != nil {
		return 255, err
	}
	o := rexec.Options{
		Socket: root + socketPath, Argv: c.Args, Env: l.nodeEnv(c.Env), Dir: dirInside(root, c.dir()),
		TTY: rexec.TTYNever, Stdin: stdin, Stdout: stdout, Stderr: stderr,
	}
	if c.TTY {
		o.TTY = rexec.TTYAuto
	}
	status, err := rexec.Run(ctx, o)
	if err == nil || status.Number() != 255 || ctx.Err() != nil {
		return status.Number(), err
	}
	if cause := l.wentOff(ctx, n, root); cause != "" {
		return 255, errno.New(errno.Unavailable, "", n, "it went off: %s", cause)
	}
	why := err.Error()
	var e *errno.Error
	switch {
	case !errors.As(err, &e):
	case e.Op == "connect":
		why = fmt.Sprintf("node %d: its daemon does not run", n)
	case e.Node == 0:
		said := *e
		said.Op, said.Node = "", n
		why = said.Error()
	}
	return 255, errno.New(errno.KindOf(err), "", 0, "%s; past the daemon: `ssi lab%s exec --console %d CMD`", why, nameFlag(l.Name), n)
}

// wentOff is why node n is off, or "" if it is not. It waits for the news, the
// longer when the node's PID 1 has ended.
func (l *Lab) wentOff(ctx context.Context, n id.Node, root string) string {
	ctx, cancel := context.WithTimeout(ctx, offWait)
	defer cancel()
	for start := time.Now(); ; {
		st, err := l.Status(ctx)
		if err != nil {
			return "the lab ended"
		}
		for _, m := range st.Nodes {
			if m.Node == n && m.State == Off {
				return m.Cause
			}
		}
		if _, err := os.Stat(root); err == nil && time.Since(start) > deathWait {
			return ""
		}
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(readyPoll):
		}
	}
}

// nameFlag is how to name a lab in a command.
func nameFlag(name string) string {
	if name == DefaultName {
		return ""
	}
	return " --name " + name
}

// dirInside is dir if the node has such a directory, or "/". Symbolic links are
// followed as in the node.
func dirInside(root, dir string) string {
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "/"
	}
	defer unix.Close(at)
	fd, err := unix.Openat2(at, dir, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	if err != nil {
		return "/"
	}
	_ = unix.Close(fd)
	return dir
}
