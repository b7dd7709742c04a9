package lab

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ssi/internal/errno"
	"ssi/internal/vm"
	"ssi/internal/vmtest"
	"ssi/netboot"
	"ssi/netboot/initramfs"
)

func TestNewestKernel(t *testing.T) {
	for _, c := range []struct {
		files []string
		want  string
	}{
		{nil, ""},
		{[]string{"/boot/vmlinuz-6.1.0-40-amd64", "/boot/vmlinuz-5.10"}, ""},
		{[]string{"/boot/vmlinuz-6.12", "/boot/vmlinuz-old"}, "/boot/vmlinuz-6.12"},
		{[]string{"/boot/vmlinuz-6.12.100+deb13-amd64", "/boot/vmlinuz-6.12.9+deb13-amd64"}, "/boot/vmlinuz-6.12.100+deb13-amd64"},
		{[]string{"/boot/vmlinuz-6.12.9", "/boot/vmlinuz-10.1-x"}, "/boot/vmlinuz-10.1-x"},
	} {
		if got := newestKernel(c.files); got != c.want {
			t.Errorf("newest of %q: %q, want %q", c.files, got, c.want)
		}
	}
}

// The mark of given boot files is the one that netboot knows.
func TestGivenMark(t *testing.T) {
	if bootGiven != netboot.Given {
		t.Errorf("%q is not %q", bootGiven, netboot.Given)
	}
}

// A kernel that is not there is named with how to get one.
func TestVMKernelMissing(t *testing.T) {
	if err := vm.Available(vm.BIOS); err != nil {
		t.Skipf("skipped: %v", err)
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skipf("skipped: %v", err)
	}
	v := &VM{Kernel: filepath.Join(t.TempDir(), "none"), Initramfs: func() initramfs.Config { return initramfs.Config{} }}
	if err := v.complete(2); err == nil || !strings.Contains(err.Error(), "apt-get download") {
		t.Errorf("no kernel: %v", err)
	}
	if err := v.complete(maxVMs + 1); errno.KindOf(err) != errno.Invalid {
		t.Errorf("too many machines: %v", err)
	}
}

// The output of a command is the same however the console's text is cut.
func TestFrame(t *testing.T) {
	const typed = "# echo ssi-\"\"begin-7; (x); echo ssi-\"\"end-7-$?-\nssi-begin-6\n"
	for _, c := range []struct{ said, want string }{
		{"hello\n", "hello\n"}, {"", ""}, {"no line feed", "no line feed"}, {"ssi-end-7-\nssi-end-", "ssi-end-7-\nssi-end-"}, {"ssi-end-7", "ssi-end-7"},
	} {
		text := []byte(typed + "ssi-begin-7\n" + c.said + "ssi-end-7-42-\n# ")
		for size := 1; size <= len(text); size++ {
			f, err := newFrame(7)
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			status, done := 0, false
			for piece := range slices.Chunk(text, size) {
				var out []byte
				if out, status, done = f.feed(piece); len(out) > 0 {
					got = append(got, out...)
				}
				if done {
					break
				}
			}
			if !done || status != 42 || string(got) != c.want {
				t.Fatalf("pieces of %d: %q, status %d, done %v; want %q", size, got, status, done, c.want)
			}
		}
	}
}

// What is shown at once must not wait for more: a prompt has no line feed.
func TestFrameShowsPrompt(t *testing.T) {
	f, err := newFrame(1)
	if err != nil {
		t.Fatal(err)
	}
	if out, _, done := f.feed([]byte("ssi-begin-1\n# ")); string(out) != "# " || done {
		t.Errorf("%q, %v", out, done)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("ssi-begin-1\nx"), []byte("y ssi-end-1-0-"))
	f.Add([]byte("ssi-begin-1\nssi-end-1-"), []byte("9999-ssi-end-1-255-"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		fr, err := newFrame(1)
		if err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, p := range [][]byte{a, b} {
			out, status, done := fr.feed(p)
			total += len(out)
			if status < 0 || status > 999 {
				t.Fatalf("status %d", status)
			}
			if done {
				break
			}
		}
		if total > len(a)+len(b) || len(fr.rest) > len(a)+len(b) {
			t.Fatal("more came out than went in")
		}
	})
}

func TestSeen(t *testing.T) {
	const said = "abc node2: press node2: press Enter\n"
	for size := 1; size <= len(said); size++ {
		s, at := seen{text: []byte("node2: press Enter")}, 0
		for piece := range slices.Chunk([]byte(said), size) {
			at += len(piece)
			if s.in(piece) {
				break
			}
		}
		if end := strings.Index(said, "\n"); at < end || at >= end+size {
			t.Errorf("pieces of %d: found after %d bytes", size, at)
		}
	}
	s := seen{text: []byte("x")}
	if s.in([]byte("abc")) || len(s.tail) != 0 {
		t.Error("it is not there")
	}
}

func TestCommandLine(t *testing.T) {
	args := []string{"a b", "it's", "", "$HOME", "new\nline"}
	out, err := exec.Command("sh", "-c", "printf '<%s>' "+commandLine(args)).Output()
	if want := "<" + strings.Join(args, "><") + ">"; err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

// TestVM: two machines, of which the second is booted by the first. A cut, a
// pause and a power cut are seen, and the machine comes back.
func TestVM(t *testing.T) {
	needRoot(t)
	if testing.Short() {
		t.Skip("skipped: it boots machines, which takes a minute")
	}
	if err := vm.Available(vm.BIOS); err != nil {
		t.Skipf("skipped: %v", err)
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skipf("skipped: the machines have no shell: %v", err)
	}
	vmtest.SkipLater(t)
	kernel := vmtest.CloudKernel(t)
	binary := vmtest.Binary(t)
	lab := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), binary, append([]string{"lab"}, args...)...)
	}
	name := "--name=" + labName("VM")
	run := func(args ...string) string {
		t.Helper()
		out, err := lab(append([]string{args[0], name}, args[1:]...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("lab %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(binary, "lab", "down", name).CombinedOutput(); err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
	})
	run("up", "--vm", "-n", "2", "--kernel", kernel.Image, "--modules", kernel.Modules)

	// Output and status are the command's.
	cmd := lab("exec", name, "1", "--", "sh", "-c", "echo it\\'s; uname -n; onnode 2 clusternode_num; exit 7")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 7 || !strings.Contains(string(out), "it's\nnode1\n2\n") {
		t.Errorf("exec: %q, %v: %s", out, err, stderr.Bytes())
	}

	// A shell that is gone (exit, ^D) is said, and another one takes its place.
	if out, err := lab("exec", name, "2", "--", "sh", "-c", `kill -9 $(cut -d" " -f4 /proc/$PPID/stat)`).CombinedOutput(); err == nil || !strings.Contains(string(out), "shell on its console ended") {
		t.Errorf("a command that ends its shell: %v: %s", err, out)
	}
	if out := run("exec", "2", "clusternode_num"); !strings.Contains(out, "2") {
		t.Errorf("the command after it: %s", out)
	}

	sees := func(state string) {
		t.Helper()
		eventually(t, "node 1 sees node 2 "+state, func() bool {
			return slices.Contains(strings.Fields(run("exec", "1", "clusternode_getstate", "2")), state)
		})
	}
	run("cut", "1", "2")
	if st := run("status"); !strings.Contains(st, "node 1 to node 2: cut") {
		t.Errorf("status: %s", st)
	}
	run("heal")
	run("pause", "2")
	if st := run("status"); !strings.Contains(st, "paused") {
		t.Errorf("status: %s", st)
	}
	run("resume", "2")
	run("crash", "2")
	sees("DOWN")
	run("start", "2")
	sees("UP")
	if logs := run("logs", "2"); !strings.Contains(logs, shellOffer) {
		t.Errorf("logs: %s", logs)
	}
	// So does the first, which has its state on a disk; without it, nobody votes.
	run("crash", "1")
	run("start", "1")
	sees("UP")
	if out := run("exec", "1", "--", "sh", "-c", "onnode 2 clusternode_num; clusternode_getstate 1"); !strings.Contains(out, "2\n") || !strings.Contains(out, "UP") {
		t.Errorf("node 1 after its power was cut: %s", out)
	}
}
