package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"ssi/internal/id"
)

const (
	// hookTimeout bounds one hook; it is killed with its process group then.
	hookTimeout = 30 * time.Second
	// hookOutput is how many bytes of a hook's output are kept for the log.
	hookOutput = 4 << 10
)

// hookEvent is what a hook is told, by its environment and its first argument.
type hookEvent struct {
	node  id.Node
	name  string
	epoch id.Epoch
	cause string
}

// runHooks runs the executables of dir in the order of their names, as
// run-parts(8) does: names of letters, digits, dashes and underscores only.
// One that fails or takes too long is reported and does not keep the others from
// running. A missing directory has no hooks.
func runHooks(ctx context.Context, log *slog.Logger, dir string, e hookEvent) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("hooks: %w", err)
	}
	name := regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)
	var failed []error
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		info, err := os.Stat(path)
		if err != nil || !name.MatchString(entry.Name()) || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			continue
		}
		start := time.Now()
		out, err := runHook(ctx, path, e)
		if err == nil {
			log.Info("hook ran", "path", path, "node", e.node, "took", time.Since(start).Round(time.Millisecond), "output", out)
		} else {
			failed = append(failed, fmt.Errorf("hook %s for node %d: %w; it said %q", path, e.node, err, out))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

func runHook(ctx context.Context, path string, e hookEvent) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, hookTimeout, fmt.Errorf("not done after %v", hookTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, path, e.node.String())
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(),
		"SSI_NODE="+e.node.String(),
		"SSI_NODENAME="+e.name,
		fmt.Sprintf("SSI_TRANSITION=%d", e.epoch),
		"SSI_CAUSE="+e.cause)
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a daemon that a hook left behind may hold the pipe
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return out.String(), err
}

// tail keeps the last hookOutput bytes written to it.
type tail struct{ buf bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - hookOutput; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(bytes.TrimSpace(t.buf.Bytes())) }
