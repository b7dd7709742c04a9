package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ssi/internal/config"
)

// linux10 is what Debian's script prints, in short.
const linux10 = `#!/bin/sh
echo "function gfxmode { set gfxpayload=keep; }"
cat <<'X'
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
	insmod part_gpt
	if [ x$feature = xy ]; then
	  search --no-floppy --fs-uuid --set=root 1234
	fi
	echo	'Loading Linux 6.12.48 ...'
	linux	/boot/vmlinuz-6.12.48 root=UUID=1234 ro init=/bin/other quiet
	initrd	/boot/initrd.img-6.12.48
}
submenu 'Advanced options' {
	menuentry 'Debian GNU/Linux, with Linux 6.1.0' --class debian {
		linux	/boot/vmlinuz-6.1.0 root=UUID=1234 ro single
	}
}
X
`

// fakeRoot is a Debian root directory as far as install looks.
func fakeRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for p, text := range map[string]string{
		"etc/debian_version":       "13.1\n",
		"etc/grub.d/00_header":     "#!/bin/sh\necho set timeout=5\n",
		"etc/grub.d/10_linux":      linux10,
		"etc/default/grub":         "GRUB_DEFAULT=0\n",
		"boot/vmlinuz-6.12.48":     "kernel",
		"boot/vmlinuz-6.1.0-9":     "kernel",
		"usr/sbin/init":            "init",
		"usr/local/bin/mine":       "mine",
		"var/lib/dpkg/info/a.list": "/.\n/usr/sbin/init\n",
	} {
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := fs.FileMode(0o644)
		if strings.Contains(p, "grub.d") {
			mode = 0o755
		}
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("usr/sbin", filepath.Join(root, "sbin")); err != nil {
		t.Fatal(err)
	}
	if err := makeMenu(root); err != nil {
		t.Fatal(err)
	}
	return root
}

// makeMenu is update-grub for a fake root.
func makeMenu(root string) error {
	scripts, err := filepath.Glob(filepath.Join(root, "etc/grub.d/[0-9]*"))
	if err != nil {
		return err
	}
	slices.Sort(scripts)
	var menu bytes.Buffer
	for _, script := range scripts {
		if strings.HasSuffix(script, "~") { // as grub-mkconfig does
			continue
		}
		cmd := exec.Command(script)
		cmd.Stdout = &menu
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "boot/grub"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "boot/grub/grub.cfg"), menu.Bytes(), 0o600)
}

// options installs into a fake root with everything.
func options(root string) Options {
	return Options{
		Root: root, Binary: []byte("\x7fELF one"), Links: []string{"onnode", "cluster"},
		Man:    map[string][]byte{"onnode.1": []byte("page")},
		Config: []byte("# example\n"), Out: io.Discard, Default: true,
		Found: func(context.Context, string) (string, error) {
			p := filepath.Join(root, clusterFile)
			return "a cluster", errors.Join(os.WriteFile(p+".key", []byte("secret"), 0o600), os.WriteFile(p, []byte("{}"), 0o600))
		},
		Where:  func(config.Config) (string, error) { return "10.0.0.1:1985", nil },
		Update: func(context.Context) error { return makeMenu(root) },
	}
}

func undoOptions(root string) UndoOptions {
	return UndoOptions{Root: root, Purge: true, Out: io.Discard, Update: func(context.Context) error { return makeMenu(root) }}
}

// tree describes everything below a directory.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if text += " " + string(b); len(b) > 4096 {
				text = fmt.Sprintf("%v %x", info.Mode(), sha256.Sum256(b))
			}
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			text += " " + to
		}
		all[strings.TrimPrefix(p, root)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var errKilled = errors.New("killed")

// killAt ends a run before its n-th change, as kill -9 does: from then on
// nothing is done. killed tells whether it came that far.
func killAt(n int) (step func() error, killed func() bool) {
	i := 0
	return func() error {
			if i++; i >= n {
				return errKilled
			}
			return nil
		}, func() bool {
			return i >= n
		}
}

func read(t *testing.T, root, p string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, p))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, root, p, text string) {
	t.Helper()
	p = filepath.Join(root, p)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
