package install

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ssi/internal/vmtest"
)

// grubProbe says of the root directory what grub-probe would say of a disk.
const grubProbe = `#!/bin/sh
for a; do
	case $a in
	--target=device) echo /dev/sda1; exit;;
	--target=fs_uuid) echo 11111111-2222-3333-4444-555555555555; exit;;
	--target=partuuid) echo 66666666-01; exit;;
	--target=fs) echo ext2; exit;;
	--target=abstraction) exit;;
	--target=partmap) echo gpt; exit;;
	--target=hints_string | --target=compatibility_hint) echo hd0,gpt1; exit;;
	esac
done
echo ext2
`

// debianRoot unpacks a Debian with grub, made once, and gives it a kernel.
func debianRoot(t *testing.T, suite string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: unpacking a Debian system and chroot want root")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("skipped: mmdebstrap is missing (package mmdebstrap)")
	}
	tar := vmtest.Made(t, "debian-"+suite+"-grub.tar", func(ctx context.Context, path string) error {
		out, err := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--variant=minbase", "--include=grub-common,grub2-common", suite, path).CombinedOutput()
		if err != nil {
			t.Skipf("skipped: no Debian %s could be made, is there a network? %v\n%s", suite, err, out)
		}
		return nil
	})
	root := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "tar", "-xf", tar, "-C", root, "--exclude=./dev/*",
		"--exclude=./usr/share/doc", "--exclude=./usr/share/man", "--exclude=./usr/share/locale", "--exclude=./usr/share/zoneinfo",
		"--exclude=./var/lib/apt/lists", "--exclude=./usr/lib/*/gconv", "--exclude=./var/cache").CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", tar, err, out)
	}
	write(t, root, "boot/vmlinuz-6.12.48-amd64", "kernel")
	write(t, root, "boot/vmlinuz-6.1.0-37-amd64", "kernel")
	write(t, root, "boot/initrd.img-6.12.48-amd64", "initrd")
	write(t, root, "etc/default/grub", "GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"console=ttyS0\"\n")
	probe := filepath.Join(root, "usr/sbin/grub-probe")
	must(t, os.Remove(probe))
	must(t, os.WriteFile(probe, []byte(grubProbe), 0o755))
	must(t, unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.MkdirAll(filepath.Join(root, "boot/grub"), 0o755))
	must(t, debianMenu(t.Context(), root))
	return root
}

// debianMenu is Debian's own update-grub in the root directory.
func debianMenu(ctx context.Context, root string) error {
	out, err := exec.CommandContext(ctx, "chroot", root, "/usr/sbin/grub-mkconfig", "-o", "/boot/grub/grub.cfg").CombinedOutput()
	if err != nil {
		return fmt.Errorf("grub-mkconfig: %w\n%s", err, out)
	}
	return nil
}

// On a real Debian: its own grub-mkconfig takes the entry up, with the same root
// device and arguments, the old one stays the first, and everything goes again.
func TestDebian(t *testing.T) {
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			root := debianRoot(t, suite)
			before := tree(t, root)
			o := options(root)
			o.Update = func(ctx context.Context) error { return debianMenu(ctx, root) }
			var out bytes.Buffer
			o.Out = &out
			must(t, Install(t.Context(), o))
			menu := read(t, root, "boot/grub/grub.cfg")
			lines := regexp.MustCompile(`(?m)^\s*linux\s+(.*)$`).FindAllStringSubmatch(menu, -1)
			first := strings.Join(strings.Fields(lines[0][1]), " ")
			if strings.Contains(first, argument) || !strings.Contains(first, "6.12.48") {
				t.Errorf("the first entry is %q", first)
			}
			ours := regexp.MustCompile(`(?s)menuentry 'ssi'.*?\n}\n`).FindString(menu)
			want := first + " " + argument
			if strings.Count(menu, argument) != 1 || !strings.Contains(strings.Join(strings.Fields(ours), " "), want) || !strings.Contains(ours, "initrd") {
				t.Errorf("our entry is\n%s\nwant %q", ours, want)
			}
			if !strings.Contains(menu, `set default="ssi"`) {
				t.Error("--default is not in the menu")
			}
			u := undoOptions(root)
			u.Update, u.Out = o.Update, &out
			must(t, Uninstall(t.Context(), u))
			if diff := cmp.Diff(before, tree(t, root)); diff != "" {
				t.Errorf("uninstall left:\n%s\n%s", diff, out.String())
			}
		})
	}
}
