package pid1

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A root with nothing in it, which cannot be written: no /proc, no /dev, no program for
// the roles, no memory file system. Process 1 lives, and ends when it is told to.
func TestBareMachine(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: needs root: it makes PID namespaces")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "bin")
	command(t, "go", "test", "-c", "-ldflags", "-s -w", "-o", binary, ".")
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	write(t, filepath.Join(root, "init"), string(b), 0o755)
	script := `mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec chroot "$0" /init bare`
	cmd := exec.Command("sh", "-c", script, root)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	x := &box{t: t, dir: dir, cmd: cmd}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			t.Logf("log:\n%s", x.read("log"))
		}
	})
	x.until("a role was tried three times", func() bool { return strings.Count(x.read("log"), "role does not start\" op=node") >= 3 })
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGINT { // as reboot(2) ends a namespace
		t.Errorf("it ended by %v", cmd.ProcessState)
	}
}
