package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// errReboot says that the machine must start anew: fsck(8) changed the root file
// system under the kernel.
var errReboot = errors.New("the file system was repaired, and the machine must start anew")

// checkMode is fsck.mode= of the kernel command line, as systemd-fsck(8) has it.
func checkMode(c CommandLine) string {
	if mode, ok := c.Get("fsck.mode"); ok && (mode == "force" || mode == "skip") {
		return mode
	}
	switch {
	case c.Has("forcefsck"):
		return "force"
	case c.Has("fastboot"):
		return "skip"
	}
	return "auto"
}

// check runs the checker of a file system's type with -a: it repairs what is safe
// without a question, and shows its progress.
func (b *boot) check(ctx context.Context, device, kind string) (string, error) {
	if checkMode(b.cmdline) == "skip" {
		return device + " not checked: the kernel command line says so", nil
	}
	program := find(b.path, "fsck."+kind)
	if program == "" || kind == "" {
		return fmt.Sprintf("%s not checked: there is no program fsck.%s", device, kind), nil
	}
	args := []string{"-a"}
	if strings.HasPrefix(kind, "ext") {
		if args = append(args, "-C0"); checkMode(b.cmdline) == "force" {
			args = append(args, "-f")
		}
	}
	cmd := exec.CommandContext(ctx, program, append(args, device)...)
	cmd.Stdout, cmd.Stderr = b.o.Out, b.o.Out
	cmd.WaitDelay = graceTime
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return "", fmt.Errorf("check %s: %w", device, err)
	}
	if !cmd.ProcessState.Exited() {
		return "", fmt.Errorf("check %s: %s ended by %s", device, program, cmd.ProcessState)
	}
	return fsckResult(device, cmd.ProcessState.ExitCode())
}

// fsckResult is what the exit status of fsck(8), a set of bits, means.
func fsckResult(device string, status int) (string, error) {
	switch {
	case status == 0:
		return device + " is clean", nil
	case status&^3 == 0 && status&2 == 0:
		return device + " was repaired", nil
	case status&^3 == 0:
		return "", fmt.Errorf("%s: %w", device, errReboot)
	case status&4 != 0:
		return "", fmt.Errorf("%s has errors that are not repaired without a question (fsck status %d): run fsck %s by hand, then leave this shell", device, status, device)
	}
	return "", fmt.Errorf("%s could not be checked (fsck status %d): see the lines above", device, status)
}

// find is the path of a program, looked for in directories; "" is none.
func find(dirs []string, name string) string {
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// programDirs is where programs are on a Linux machine.
func programDirs() []string {
	return []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
}
