package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
)

// StatusNoLogin is the exit status of the role getty when nobody may log in on
// its terminal: it is not started again.
const StatusNoLogin = 3

// ValidTerminal reports whether name can be that of a terminal in /dev.
func ValidTerminal(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) <= 32
}

// login is how a terminal is served.
type login struct {
	argv  []string // agetty(8), which takes the place of this process; nil: none
	shell bool     // whoever presses Enter is root
	why   string   // without either
}

// loginOf decides how the terminal is served. A shell without a password is given
// only where the kernel command line allows it, or where the machine has no
// passwords at all: a node whose root is in memory. exe, this program, is executed by
// agetty(8) as the role login.
func loginOf(tty, exe, agetty, loginProgram, passwd string, c CommandLine, inMemory bool) login {
	root := strings.HasPrefix(passwd, "root:") || strings.Contains(passwd, "\nroot:")
	mode, _ := c.Get("ssi.console")
	switch {
	case agetty != "" && loginProgram != "" && root:
		argv := []string{agetty, "-l", exe, "-o", "login -p -- \\u"}
		if virtual(tty) {
			argv = append(argv, "--noclear", "-", "linux")
		} else {
			argv = append(argv, "--keep-baud", "115200,57600,38400,9600", "-", "vt220")
		}
		for i := range argv {
			if argv[i] == "-" {
				argv[i] = tty
			}
		}
		return login{argv: argv}
	case mode == "shell", inMemory && !root:
		return login{shell: true}
	}
	return login{why: "agetty(8) and login(1) are not installed, and ssi.console=shell is not on the kernel command line"}
}

// virtual reports whether it is a virtual console: tty1 and so on.
func virtual(tty string) bool {
	n, ok := strings.CutPrefix(tty, "tty")
	return ok && n != "" && strings.Trim(n, "0123456789") == ""
}

// RunGetty is the role getty: it serves the terminal that its argument names until
// the user has logged out. It returns the exit status.
func RunGetty(log *slog.Logger, space Space, args []string) int {
	if len(args) != 1 || !ValidTerminal(args[0]) {
		log.Error("getty: one argument is needed, the name of a terminal such as ttyS0", "op", "getty")
		return 2
	}
	tty := args[0]
	text, err := readLimited("/proc/cmdline", MaxCommandLine)
	if err != nil {
		log.Warn("kernel command line", "op", "getty", "err", err)
	}
	passwd, err := readLimited("/etc/passwd", 1<<20)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Error("getty", "op", "getty", "tty", tty, "err", err)
		return 1
	}
	exe, err := os.Executable()
	if err != nil {
		exe = "/sbin/ssi"
	}
	dirs := programDirs()
	l := loginOf(tty, exe, find(dirs, "agetty"), find(dirs, "login"), passwd, ParseCommandLine(text), inMemory())
	switch {
	case l.argv != nil:
		term := l.argv[len(l.argv)-1]
		env := []string{"TERM=" + term, "PATH=" + strings.Join(dirs, ":")}
		for _, name := range []string{keeper.FDEnv, KmsgEnv} { // for the role login
			if v, ok := os.LookupEnv(name); ok {
				env = append(env, name+"="+v)
			}
		}
		err := unix.Exec(l.argv[0], l.argv, env)
		log.Error("start agetty", "op", "getty", "tty", tty, "err", err)
		return 1
	case l.shell:
		if err := ownLogin(context.Background(), log, space, "/dev/"+tty, dirs); err != nil {
			log.Error("shell on the console", "op", "getty", "tty", tty, "err", err)
			return 1
		}
		return 0
	}
	log.Warn("nobody can log in here", "op", "getty", "tty", tty, "err", l.why)
	return StatusNoLogin
}

// ownLogin waits for Enter and starts a shell of root.
func ownLogin(ctx context.Context, log *slog.Logger, space Space, path string, dirs []string) error {
	argv, err := shell(dirs)
	if err != nil {
		return err
	}
	tty, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = tty.Close() }()
	name, _ := os.Hostname()
	if _, err := fmt.Fprintf(tty, "\r\n%s: press Enter for a shell of root.\r\n", name); err != nil {
		return err
	}
	var b [1]byte // an open line may bring noise; only an end of line counts
	for b[0] != '\n' && b[0] != '\r' {
		n, err := tty.Read(b[:])
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if n == 0 {
			return fmt.Errorf("read %s: %w", path, io.EOF)
		}
	}
	pid, err := space.start(ctx, log, argv, shellEnv("vt220"), []uintptr{tty.Fd(), tty.Fd(), tty.Fd()})
	if err == nil {
		wait(pid)
		return nil
	}
	hereOnly(tty, log, err)
	return onTerminal(ctx, tty, argv, shellEnv("vt220"))
}

// Terminals are those to log in on: of the active consoles, as
// /sys/class/tty/console/active lists them, at most 8. For tty0, whatever virtual
// console is in front, it is tty1.
func Terminals(active string) []string {
	var list []string
	for _, name := range strings.Fields(active) {
		if name == "tty0" {
			name = "tty1"
		}
		if ValidTerminal(name) && len(list) < 8 && !strings.Contains(" "+strings.Join(list, " ")+" ", " "+name+" ") {
			list = append(list, name)
		}
	}
	return list
}
