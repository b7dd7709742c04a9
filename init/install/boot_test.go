package install

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// systemd-boot gets an entry made from that of the newest kernel.
func TestSystemdBoot(t *testing.T) {
	root := fakeRoot(t)
	must(t, os.RemoveAll(root+"/etc/grub.d"))
	const dir = "boot/efi/loader/entries/"
	write(t, root, dir+"abc-6.9.1-amd64.conf", "title Debian\nlinux /abc/6.9.1/linux\noptions root=UUID=1 ro\n")
	write(t, root, dir+"abc-6.12.48-amd64.conf", "# by kernel-install\ntitle      Debian\nversion    6.12.48-amd64\nmachine-id abc\nsort-key   debian\noptions    root=UUID=1 ro init=/x quiet\nlinux      /abc/6.12.48/linux\ninitrd     /abc/6.12.48/initrd\n")
	before := tree(t, root)
	var out bytes.Buffer
	o := options(root)
	o.Out = &out
	must(t, Install(t.Context(), o))
	got := read(t, root, dir+"ssi.conf")
	want := "# Written by \"ssi install\", removed by \"ssi uninstall\".\n# by kernel-install\ntitle ssi\nversion    6.12.48-amd64\nlinux      /abc/6.12.48/linux\ninitrd     /abc/6.12.48/initrd\noptions root=UUID=1 ro quiet init=/sbin/ssi\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(out.String(), "bootctl set-default") {
		t.Errorf("said:\n%s", out.String())
	}
	must(t, Uninstall(t.Context(), undoOptions(root)))
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("uninstall left:\n%s", diff)
	}
}

const extlinuxText = `default l0
menu title U-Boot menu
timeout 50

label l0
	menu label Debian GNU/Linux 13 6.12.48
	linux /boot/vmlinuz-6.12.48
	initrd /boot/initrd.img-6.12.48
	append root=/dev/sda1 ro quiet

label l0r
	menu label rescue
	linux /boot/vmlinuz-6.12.48
	append root=/dev/sda1 ro single
`

func TestExtlinux(t *testing.T) {
	root := fakeRoot(t)
	must(t, os.RemoveAll(root+"/etc/grub.d"))
	write(t, root, "boot/extlinux/extlinux.conf", extlinuxText)
	before := tree(t, root)
	o := options(root)
	o.Default = false
	must(t, Install(t.Context(), o))
	want := extlinuxText + "\nlabel ssi\n\tmenu label ssi\n\tlinux /boot/vmlinuz-6.12.48\n\tinitrd /boot/initrd.img-6.12.48\n\tappend root=/dev/sda1 ro quiet init=/sbin/ssi\n"
	if diff := cmp.Diff(want, read(t, root, extlinux)); diff != "" {
		t.Error(diff)
	}
	must(t, Install(t.Context(), o))
	must(t, Uninstall(t.Context(), undoOptions(root)))
	if diff := cmp.Diff(before, tree(t, root)); diff != "" {
		t.Errorf("uninstall left:\n%s", diff)
	}
	if text, ok := extlinuxEntry(extlinuxText, true); !ok || !strings.HasPrefix(text, "default ssi\n") {
		t.Errorf("as the default: %v\n%s", ok, text)
	}
	for _, bad := range []string{"", "label a\n", "\x00\xff", "default x\nlabel a\n\tappend y\n"} {
		if text, ok := extlinuxEntry(bad, true); ok {
			t.Errorf("%q became %q", bad, text)
		}
	}
}

// A menu made while 10_linux is switched off has no entry of ours, and is made.
func TestNoLinuxEntry(t *testing.T) {
	root := installed(t)
	must(t, os.Chmod(root+"/etc/grub.d/10_linux", 0o644))
	must(t, os.Rename(root+"/etc/grub.d/10_linux", root+"/etc/grub.d/off"))
	must(t, makeMenu(root))
	if menu := read(t, root, "boot/grub/grub.cfg"); strings.Contains(menu, "ssi") {
		t.Errorf("menu:\n%s", menu)
	}
}

func TestNoBootLoader(t *testing.T) {
	root := fakeRoot(t)
	must(t, os.RemoveAll(root+"/etc/grub.d"))
	var out bytes.Buffer
	o := options(root)
	o.Out = &out
	must(t, Install(t.Context(), o))
	if !strings.Contains(out.String(), "no boot loader was found") || !strings.Contains(out.String(), argument) {
		t.Errorf("said:\n%s", out.String())
	}
}

func TestCompareVersions(t *testing.T) {
	ordered := []string{"", "6.1.0-9", "6.1.0-30", "6.9.1", "6.12.3-amd64", "6.12.48", "10.0"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := compareVersions(a, b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%q to %q: %d", a, b, got)
			}
		}
	}
}

// What others wrote into these files never makes an entry without our argument.
func FuzzEntries(f *testing.F) {
	f.Add(extlinuxText)
	f.Add("lABel\n linuX\n Append\nAppend")
	f.Add("options a\noptions b\nlinux x\n")
	f.Fuzz(func(t *testing.T, text string) {
		if out, ok := extlinuxEntry(text, true); ok && strings.Count(out, argument) != 1 {
			t.Errorf("%q", out)
		}
		if out := withInit(text); strings.Count(" "+out, " init=") != 1 || !strings.HasSuffix(out, argument) {
			t.Errorf("%q", out)
		}
	})
}
