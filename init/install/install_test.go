package install

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// All is there, the old way to boot too, and all goes again.
func TestInstallAndUninstall(t *testing.T) {
	root := fakeRoot(t)
	before := tree(t, root)
	o := options(root)
	o.Default = false
	must(t, Install(t.Context(), o))
	if got := read(t, root, "usr/sbin/ssi"); got != string(o.Binary) {
		t.Errorf("/sbin/ssi holds %q", got)
	}
	for _, p := range []string{"etc/ssi/ssi.toml", "var/lib/ssi/netboot", "cluster", "var/lib/ssi/cluster.json", "usr/local/share/man/man1/onnode.1"} {
		if _, err := os.Stat(filepath.Join(root, p)); err != nil {
			t.Error(err)
		}
	}
	if to, err := os.Readlink(filepath.Join(root, "usr/local/bin/onnode")); err != nil || to != Program {
		t.Errorf("the link leads to %q (%v)", to, err)
	}
	menu := read(t, root, "boot/grub/grub.cfg")
	if !strings.Contains(menu, "menuentry 'ssi' ") || strings.Count(menu, "vmlinuz-6.12.48 root=UUID=1234 ro quiet init=/sbin/ssi\n") != 1 ||
		!strings.Contains(menu, "init=/bin/other") || strings.Count(menu, "vmlinuz-6.1.0") != 1 || strings.Contains(menu, "GRUB_DEFAULT") {
		t.Errorf("menu:\n%s", menu)
	}
	// Again: nothing changes.
	once := tree(t, root)
	var out bytes.Buffer
	o.Out = &out
	must(t, Install(t.Context(), o))
	if diff := cmp.Diff(once, tree(t, root)); diff != "" || strings.Contains(out.String(), "wrote") || strings.Contains(out.String(), "ran") {
		t.Errorf("a second run changed something:\n%s\n%s", diff, out.String())
	}
	must(t, Uninstall(t.Context(), undoOptions(root)))
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("uninstall left:\n%s", diff)
	}
	must(t, Uninstall(t.Context(), undoOptions(root)))
}

// A dry run names what the real one does, and changes nothing.
func TestDryRun(t *testing.T) {
	root := fakeRoot(t)
	before := tree(t, root)
	o := options(root)
	var dry, real bytes.Buffer
	o.DryRun, o.Out = true, &dry
	must(t, Install(t.Context(), o))
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("a dry run changed:\n%s", diff)
	}
	o.DryRun, o.Out = false, &real
	must(t, Install(t.Context(), o))
	for line := range strings.Lines(real.String()) {
		verb, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what = strings.TrimSpace(what); verb != "founded" && !strings.Contains(dry.String(), what) {
			t.Errorf("%q was not announced:\n%s", line, dry.String())
		}
	}
	u := undoOptions(root)
	installed := tree(t, root)
	u.DryRun = true
	must(t, Uninstall(t.Context(), u))
	if diff := cmp.Diff(installed, tree(t, root)); diff != "" {
		t.Errorf("a dry uninstall changed:\n%s", diff)
	}
}

// A newer program replaces an older one, which is kept; what was there before
// the first one comes back in the end.
func TestUpgrade(t *testing.T) {
	root := fakeRoot(t)
	write(t, root, "usr/sbin/ssi", "zero")
	before := tree(t, root)
	o := options(root)
	must(t, Install(t.Context(), o))
	o.Binary = []byte("\x7fELF two")
	must(t, Install(t.Context(), o))
	if a, b := read(t, root, "usr/sbin/ssi"), read(t, root, "usr/sbin/ssi.old"); a != "\x7fELF two" || b != "\x7fELF one" {
		t.Errorf("ssi %q, ssi.old %q", a, b)
	}
	must(t, Uninstall(t.Context(), undoOptions(root)))
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("uninstall left:\n%s", diff)
	}
}

// What the operator has changed stays and is named; so does the cluster.
func TestUninstallKeeps(t *testing.T) {
	root := fakeRoot(t)
	must(t, Install(t.Context(), options(root)))
	write(t, root, "etc/ssi/ssi.toml", "name = \"mine\"\n")
	write(t, root, "etc/grub.d/41_ssi", "#!/bin/sh\n# mine\n")
	write(t, root, "var/lib/ssi/netboot/kernel", "k")
	u := undoOptions(root)
	u.Purge = false
	var out bytes.Buffer
	u.Out = &out
	must(t, Uninstall(t.Context(), u))
	for _, want := range []string{"kept         /etc/ssi/ssi.toml: it was changed since", "kept         /etc/grub.d/41_ssi:", "netboot: it is not empty", "--purge"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not said:\n%s", want, out.String())
		}
	}
	for _, p := range []string{"etc/ssi/ssi.toml", "etc/grub.d/41_ssi", "var/lib/ssi/cluster.json", "var/lib/ssi/cluster.json.key"} {
		read(t, root, p)
	}
	for _, p := range []string{"usr/sbin/ssi", "usr/local/bin/onnode", "var/lib/ssi/install.d"} {
		if _, err := os.Lstat(filepath.Join(root, p)); err == nil {
			t.Errorf("%s is left", p)
		}
	}
	// Minds may change: what was kept can be purged later.
	must(t, Uninstall(t.Context(), undoOptions(root)))
	if _, err := os.Lstat(filepath.Join(root, "var/lib/ssi")); err == nil {
		t.Error("the state was not purged")
	}
}

// A machine that has a cluster keeps it, and its configuration.
func TestKeepsCluster(t *testing.T) {
	root := fakeRoot(t)
	write(t, root, "var/lib/ssi/cluster.json", "mine")
	write(t, root, "etc/ssi/ssi.toml", "# mine")
	o := options(root)
	o.Found = func(context.Context, string) (string, error) { t.Error("a second cluster was founded"); return "", nil }
	must(t, Install(t.Context(), o))
	if read(t, root, "var/lib/ssi/cluster.json")+read(t, root, "etc/ssi/ssi.toml") != "mine# mine" {
		t.Error("something was replaced")
	}
	u := undoOptions(root)
	u.Purge = false
	must(t, Uninstall(t.Context(), u))
	read(t, root, "var/lib/ssi/cluster.json")
	read(t, root, "etc/ssi/ssi.toml")
	if _, err := os.Lstat(filepath.Join(root, recordFile)); err == nil {
		t.Error("the record is left")
	}
}

// Whatever the moment in which a run is killed: uninstall brings the system
// back, and so does install, again, then uninstall.
func TestKilledInstall(t *testing.T) {
	done := tree(t, installed(t))
	for n := 1; ; n++ {
		root := fakeRoot(t)
		before := tree(t, root)
		step, killed := killAt(n)
		o := options(root)
		o.step = step
		err := Install(t.Context(), o)
		if !killed() {
			must(t, err)
			if n < 30 {
				t.Errorf("only %d changes were found", n)
			}
			return
		}
		if err == nil {
			t.Fatalf("change %d: the run ended well", n)
		}
		if n%2 == 0 {
			must(t, Install(t.Context(), options(root)))
			if diff := cmp.Diff(done, tree(t, root), ignoreRecord()); diff != "" {
				t.Fatalf("killed at change %d, then installed:\n%s", n, diff)
			}
		}
		must(t, Uninstall(t.Context(), undoOptions(root)))
		if diff := cmp.Diff(before, tree(t, root)); diff != "" {
			t.Fatalf("killed at change %d, then uninstalled:\n%s", n, diff)
		}
	}
}

// The same for an upgrade over a program that was there before.
func TestKilledUpgrade(t *testing.T) {
	for n := 1; ; n++ {
		root := fakeRoot(t)
		write(t, root, "usr/sbin/ssi", "zero")
		before := tree(t, root)
		must(t, Install(t.Context(), options(root)))
		step, killed := killAt(n)
		o := options(root)
		o.step, o.Binary = step, []byte("\x7fELF two")
		err := Install(t.Context(), o)
		if !killed() {
			must(t, err)
			return
		}
		must(t, Uninstall(t.Context(), undoOptions(root)))
		if diff := cmp.Diff(before, tree(t, root)); diff != "" {
			t.Fatalf("killed at change %d, then uninstalled:\n%s", n, diff)
		}
	}
}

// The same for uninstall.
func TestKilledUninstall(t *testing.T) {
	for n := 1; ; n++ {
		root := fakeRoot(t)
		write(t, root, "usr/sbin/ssi", "zero")
		before := tree(t, root)
		must(t, Install(t.Context(), options(root)))
		step, killed := killAt(n)
		u := undoOptions(root)
		u.step = step
		err := Uninstall(t.Context(), u)
		if !killed() {
			must(t, err)
			return
		}
		must(t, Uninstall(t.Context(), undoOptions(root)))
		if diff := cmp.Diff(before, tree(t, root)); diff != "" {
			t.Fatalf("killed at change %d:\n%s", n, diff)
		}
	}
}

func installed(t *testing.T) string {
	root := fakeRoot(t)
	must(t, Install(t.Context(), options(root)))
	return root
}

// ignoreRecord leaves the order of the record's entries out: all else must be
// the same.
func ignoreRecord() cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool { return strings.Contains(p.String()+p.GoString(), recordFile) }, cmp.Ignore())
}
