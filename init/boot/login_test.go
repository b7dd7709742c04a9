package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTerminals(t *testing.T) {
	if got := Terminals("tty0 ttyS0 hvc0 tty1 ../x\n"); !slices.Equal(got, []string{"tty1", "ttyS0", "hvc0"}) {
		t.Errorf("%v", got)
	}
	if got := Terminals("a b c d e f g h i j"); len(got) != 8 {
		t.Errorf("%v", got)
	}
}

// Nobody gets a shell without a password who is not meant to.
func TestLoginOf(t *testing.T) {
	const root = "daemon:x:1:1::/:/bin/false\nroot:x:0:0:root:/root:/bin/bash\n"
	for _, c := range []struct {
		name, tty, agetty, login, passwd, line string
		memory                                 bool
		want                                   string
	}{
		{"Debian, serial", "ttyS0", "/sbin/agetty", "/bin/login", root, "", false, "/sbin/agetty -l /sbin/ssi -o login -p -- \\u --keep-baud 115200,57600,38400,9600 ttyS0 vt220"},
		{"Debian, screen", "tty1", "/sbin/agetty", "/bin/login", root, "", false, "/sbin/agetty -l /sbin/ssi -o login -p -- \\u --noclear tty1 linux"},
		{"Debian keeps its login", "tty1", "/sbin/agetty", "/bin/login", root, "ssi.console=shell", false, "/sbin/agetty -l /sbin/ssi -o login -p -- \\u --noclear tty1 linux"},
		{"no agetty", "tty1", "", "/bin/login", root, "", false, "none"},
		{"no agetty, in memory, but passwords", "tty1", "", "/bin/login", root, "", true, "none"},
		{"asked for", "ttyS0", "", "", root, "ssi.console=shell", false, "shell"},
		{"something else asked for", "ttyS0", "", "", root, "ssi.console=1", false, "none"},
		{"diskless", "ttyS0", "", "", "", "", true, "shell"},
		{"no passwords, but a disk", "ttyS0", "/sbin/agetty", "/bin/login", "notroot:x:0:0", "", false, "none"},
	} {
		l := loginOf(c.tty, "/sbin/ssi", c.agetty, c.login, c.passwd, ParseCommandLine(c.line), c.memory)
		got := strings.Join(l.argv, " ")
		switch {
		case l.shell:
			got = "shell"
		case l.argv == nil && l.why != "":
			got = "none"
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestRescue(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "sh"), "", 0o644)
	put(t, filepath.Join(dir, "busybox"), "", 0o755)
	dirs := []string{dir}
	for shadow, want := range map[string]string{
		"":                        "busybox sh -i",
		"root:*:1::":              "busybox sh -i",
		"root:!:1::":              "busybox sh -i",
		"root::1::":               "busybox sh -i",
		"a:$y$x:1\nroot:$y$z:1::": "",
	} {
		argv, err := rescue(dirs, shadow)
		got := strings.TrimPrefix(strings.Join(argv, " "), dir+"/")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", shadow, got, err)
		}
	}
	put(t, filepath.Join(dir, "sulogin"), "", 0o755)
	if argv, err := rescue(dirs, "root:$y$z:1::"); err != nil || argv[0] != filepath.Join(dir, "sulogin") {
		t.Errorf("%v, %v", argv, err)
	}
	if _, err := rescue([]string{t.TempDir()}, ""); err == nil {
		t.Error("a shell from nowhere")
	}
}

// What cannot be unmounted is named with who holds it. The test runs again in a
// mount namespace of its own.
func TestHolders(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: needs root to mount")
	}
	dir := t.TempDir()
	attr := &syscall.ProcAttr{
		Env: append(os.Environ(), "BOOT_TEST_DIR="+dir), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL},
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"boot.test", "-test.run", "^TestHoldersInside$"}, attr)
	if err != nil {
		t.Skipf("skipped: no mount namespace: %v", err)
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil || ws.ExitStatus() != 0 {
		t.Errorf("%v, %v", ws, err)
	}
}

func TestHoldersInside(t *testing.T) {
	dir := os.Getenv("BOOT_TEST_DIR")
	if dir == "" {
		t.Skip("skipped: a part of TestHolders")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("t", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "file"), "x", 0o644)
	m, ok := mountAt(dir)
	if !ok || m.kind != "tmpfs" || !m.writable() {
		t.Fatalf("%+v", m)
	}
	attr := &syscall.ProcAttr{Dir: dir, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}}
	pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, attr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}()
	if got, want := heldBy(m.dev), "; held by sleep ("+strconv.Itoa(pid)+": cwd)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var out bytes.Buffer
	b := newBoot(Options{Out: &out})
	sub := filepath.Join(dir, "sub")
	for _, c := range []struct{ fstab, want string }{
		{"t " + sub + " tmpfs size=1m,nosuid", "1 file systems"},
		{"t " + sub + " tmpfs", "1 file systems"}, // it is there already
		{dir + " " + sub + "2 none bind,ro", "1 file systems"},
		{"/none " + sub + "3 none bind,nofail", "0 file systems; bind /none to " + sub + "3: no such file or directory (nofail)"},
		{"/dev/null " + sub + "4 nosuchfs", "nosuchfs"},
	} {
		b.fstab, _ = ParseFstab(c.fstab)
		ctx, cancel := t.Context(), func() {}
		text, err := b.mountEntries(ctx, false, func(string) { cancel() })
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, c.want) {
			t.Errorf("%s: %q, want %q", c.fstab, text, c.want)
		}
	}
	if m, ok := mountAt(sub + "2"); !ok || !slices.Contains(m.options, "ro") {
		t.Errorf("the bind mount is writable: %+v", m)
	}
}
