package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ssi/internal/config"
)

// What forbids an installation is said in plain words, all at once, and nothing
// has changed.
func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		what  string
		spoil func(root string, o *Options)
		want  string
	}{
		{"old kernel", func(root string, _ *Options) { _ = os.Remove(filepath.Join(root, "boot/vmlinuz-6.12.48")) }, "newest kernel in /boot is 6.1.0-9: 6.12 or newer"},
		{"no kernel", func(root string, _ *Options) { _ = os.RemoveAll(filepath.Join(root, "boot")) }, "no kernel"},
		{"features", func(_ string, o *Options) { o.Missing = []string{"seccomp user notification"} }, "lacks seccomp user notification"},
		{"a package's", func(root string, _ *Options) {
			_ = os.WriteFile(filepath.Join(root, "var/lib/dpkg/info/ssi.list"), []byte("/.\n/usr/sbin/ssi\n"), 0o600)
		}, "belongs to the package ssi"},
		{"a name that is taken", func(_ string, o *Options) { o.Links = append(o.Links, "mine") }, "/usr/local/bin/mine is there and is not ours"},
		{"a directory", func(root string, _ *Options) { _ = os.MkdirAll(filepath.Join(root, "usr/sbin/ssi/x"), 0o700) }, "/sbin/ssi is there and is not ours"},
		{"no program", func(_ string, o *Options) { o.Binary = nil }, "program is empty"},
		{"no system", func(root string, o *Options) { o.Root = filepath.Join(root, "etc") }, "does not look like the root of a Debian system"},
		{"no directory", func(root string, o *Options) { o.Root = filepath.Join(root, "nosuch") }, "no such file"},
	} {
		t.Run(c.what, func(t *testing.T) {
			root := fakeRoot(t)
			o := options(root)
			c.spoil(root, &o)
			before := tree(t, root)
			for _, dry := range []bool{true, false} {
				o.DryRun = dry
				if err := Install(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("dry %v: %v, want %q", dry, err, c.want)
				}
			}
			if diff := cmp.Diff(before, tree(t, root)); diff != "" {
				t.Errorf("something changed:\n%s", diff)
			}
		})
	}
}

// A link that leads out of the root directory is not followed.
func TestStaysInside(t *testing.T) {
	outside := t.TempDir()
	root := fakeRoot(t)
	must(t, os.Symlink(outside, filepath.Join(root, "etc/ssi")))
	if err := Install(t.Context(), options(root)); err == nil {
		t.Error("it was installed")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside: %v %v", entries, err)
	}
	must(t, Uninstall(t.Context(), undoOptions(root)))
}

// A record that is damaged, or not ours, undoes nothing.
func TestDamagedRecord(t *testing.T) {
	for _, bad := range []string{"", "{", `{"version":2}`, `{"version":1,"entries":[{"kind":"file","path":"../etc/passwd"}]}`,
		`{"version":1,"entries":[{"kind":"file","path":"/"}]}`, `{"version":1,"entries":[{"kind":"tree","path":"/etc"}]}`,
		`{"version":1,"entries":[{"kind":"file","path":"/etc/x","saved":"../../../etc/shadow"}]}`} {
		root := installed(t)
		write(t, root, "var/lib/ssi/install.json", bad)
		before := tree(t, root)
		for what, err := range map[string]error{"install": Install(t.Context(), options(root)), "uninstall": Uninstall(t.Context(), undoOptions(root))} {
			if err == nil || !strings.Contains(err.Error(), recordFile) {
				t.Errorf("%s with %q: %v", what, bad, err)
			}
		}
		if diff := cmp.Diff(before, tree(t, root)); diff != "" {
			t.Errorf("%q: something changed:\n%s", bad, diff)
		}
	}
}

// What fails half-way says what to do, and can be finished.
func TestFailures(t *testing.T) {
	root := fakeRoot(t)
	before := tree(t, root)
	o := options(root)
	o.Found = func(context.Context, string) (string, error) { return "", errors.New("there is no default route") }
	if err := Install(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no default route") || !strings.Contains(err.Error(), "run it again") {
		t.Errorf("err %v", err)
	}
	if strings.Contains(read(t, root, "boot/grub/grub.cfg"), "init=/sbin/ssi") {
		t.Error("there is a boot entry without a cluster")
	}
	o = options(root)
	o.Update = func(context.Context) error { return errors.New("exit status 1") }
	if err := Install(t.Context(), o); err == nil || !strings.Contains(err.Error(), "boot menu") {
		t.Errorf("err %v", err)
	}
	var out bytes.Buffer
	o = options(root)
	o.Out = &out
	must(t, Install(t.Context(), o))
	if !strings.Contains(out.String(), "ran          update-grub") || !strings.Contains(read(t, root, "boot/grub/grub.cfg"), "init=/sbin/ssi") {
		t.Errorf("the menu was not made at last:\n%s", out.String())
	}
	// Two at once.
	release, err := (&disk{root: openRoot(t, root)}).lock()
	must(t, err)
	if err := Uninstall(t.Context(), undoOptions(root)); err == nil || !strings.Contains(err.Error(), "another install") {
		t.Errorf("err %v", err)
	}
	release()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Uninstall(ctx, undoOptions(root)); !errors.Is(err, context.Canceled) {
		t.Errorf("err %v", err)
	}
	must(t, Uninstall(t.Context(), undoOptions(root)))
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("left:\n%s", diff)
	}
}

func openRoot(t *testing.T, dir string) *os.Root {
	root, err := os.OpenRoot(dir)
	must(t, err)
	t.Cleanup(func() { _ = root.Close() })
	return root
}

// The commands: what is asked, and what a wrong line says.
func TestCommands(t *testing.T) {
	root := fakeRoot(t)
	before := tree(t, root)
	pages := t.TempDir()
	write(t, pages, "onnode.1", "page")
	var out, stderr bytes.Buffer
	var founded FoundOptions
	env := Env{
		Out: &out, Err: &stderr, Terminal: true, Links: []string{"onnode"}, Config: []byte("# c\n"),
		Missing: func(context.Context) []string { t.Error("this machine is not asked"); return nil },
		Found: func(_ context.Context, in string, o FoundOptions) (string, error) {
			founded = o
			return "it", os.WriteFile(filepath.Join(in, clusterFile), []byte("{}"), 0o600)
		},
		Where: func(_, told string, _ config.Config) (string, error) { return config.CompleteAddr(told) },
		Usage: func(text string) error { return fmt.Errorf("usage: %s", text) },
	}
	run := func(in string, args ...string) error {
		env.In = strings.NewReader(in)
		cmd := Command(env)
		if args[0] == "uninstall" {
			cmd = UninstallCommand(env)
		}
		cmd.SetArgs(args[1:])
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		return cmd.ExecuteContext(t.Context())
	}
	for _, c := range []struct {
		want string
		in   string
		args []string
	}{
		{"no man pages", "", []string{"install", "--root", root, "--man", t.TempDir()}},
		{"no program for Linux", "", []string{"install", "--root", root, "--program", filepath.Join(root, "etc/debian_version")}},
		{"no such file", "", []string{"install", "--root", root + "/nosuch"}},
		{"no directory", "", []string{"install", "--root", filepath.Join(root, "etc/debian_version")}},
		{"nothing was changed:\n  found a cluster: ", "", []string{"install", "--root", root}},
		{"not confirmed", "yes\n", []string{"uninstall", "--root", root, "--purge"}},
	} {
		if err := run(c.in, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("something changed:\n%s", diff)
	}
	must(t, run("", "install", "--root", root, "--man", pages, "--name", "web", "--addr", "10.0.0.1"))
	if founded != (FoundOptions{Name: "web", Addr: "10.0.0.1:1985"}) || !strings.Contains(out.String(), "run update-grub in that system") {
		t.Errorf("founded %+v, said:\n%s", founded, out.String())
	}
	env.Terminal = false
	if err := run("", "uninstall", "--root", root, "--purge"); err == nil || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without a terminal: %v", err)
	}
	env.Terminal = true
	must(t, run("purge\n", "uninstall", "--root", root, "--purge"))
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("left:\n%s", diff)
	}
}
