package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// noShellTime is how long the start pauses where no shell may be given.
const noShellTime = time.Minute

// password is what /etc/shadow says of root.
type password int

const (
	noDatabase password = iota // there is no file, or no root in it
	unset                      // empty, or locked: root never logs in by password
	usable
)

// rootPassword reads shadow(5).
func rootPassword(shadow string) password {
	for line := range strings.Lines(shadow) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 2 || f[0] != "root" {
			continue
		}
		if f[1] == "" || strings.HasPrefix(f[1], "!") || strings.HasPrefix(f[1], "*") {
			return unset
		}
		return usable
	}
	return noDatabase
}

// rescue is the program that gives root a shell on the console: sulogin(8) if
// root has a password, or any shell. Where root has a password that nothing here can
// ask for, there is none.
func rescue(dirs []string, shadow string) ([]string, error) {
	if rootPassword(shadow) == usable {
		if program := find(dirs, "sulogin"); program != "" {
			return []string{program}, nil
		}
		return nil, errors.New("root has a password, and sulogin(8), which would ask for it, is not installed")
	}
	return shell(dirs)
}

// shell finds a shell.
func shell(dirs []string) ([]string, error) {
	for _, name := range []string{"bash", "sh"} {
		if program := find(dirs, name); program != "" {
			return []string{program, "-i"}, nil
		}
	}
	if program := find(dirs, "busybox"); program != "" {
		return []string{program, "sh", "-i"}, nil
	}
	return nil, errors.New("there is no bash, sh or busybox")
}

// onTerminal runs a program with a terminal of its own and waits for its end.
func onTerminal(ctx context.Context, tty *os.File, argv []string, env []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.Env, cmd.Dir = env, "/"
	cmd.WaitDelay = graceTime
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	err := cmd.Run()
	if cmd.ProcessState != nil {
		return nil // how a shell ends is its user's business
	}
	return err
}

// shellEnv is the environment of a shell of root.
func shellEnv(term string) []string {
	return []string{"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/sh", "TERM=" + term, "PATH=" + strings.Join(programDirs(), ":")}
}

// emergency says why the start cannot go on and gives root a shell on the
// console. It returns when that has ended.
func (b *boot) emergency(ctx context.Context, step string, why error) {
	p := b.o.Out
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(p, format+"\r\n", args...) }
	line("")
	line("The start of this machine stops at %q: %s", step, cut(why.Error()))
	shadow, _ := readLimited("/etc/shadow", 1<<20)
	argv, err := rescue(b.path, shadow)
	var tty *os.File
	if err == nil {
		tty, err = os.OpenFile(b.o.Console, os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err == nil {
		line("A shell follows. When it ends (exit, or Ctrl-D), %q is tried again; `ssi reboot` starts the machine anew.", step)
		err = onTerminal(ctx, tty, argv, shellEnv("linux"))
		_ = tty.Close()
	}
	if err != nil {
		line("There can be no shell: %s. %q is tried again in %s; Ctrl-Alt-Del starts the machine anew.", cut(err.Error()), step, noShellTime)
		select {
		case <-time.After(noShellTime):
		case <-ctx.Done():
		}
	}
}

// readLimited reads a file of at most limit bytes.
func readLimited(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return "", fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return string(b), err
}
