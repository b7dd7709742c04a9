package initramfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"
)

// unpack reads an archive with somebody else's code.
func unpack(t *testing.T, b []byte, c Compression) map[string]cpio.Record {
	t.Helper()
	var r io.Reader = bytes.NewReader(b)
	var err error
	switch c {
	case Gzip:
		r, err = gzip.NewReader(r)
	case Zstd:
		// The kernel does not take zeroes within a frame for its end.
		z, e := zstd.NewReader(bytes.NewReader(bytes.TrimRight(b, "\x00")))
		if e == nil {
			defer z.Close()
		}
		r, err = z, e
	}
	if err != nil {
		t.Fatal(err)
	}
	if z, ok := r.(*gzip.Reader); ok {
		z.Multistream(false)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(plain)))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]cpio.Record{}
	last := ""
	for _, rec := range records {
		if rec.Name <= last || rec.MTime != 0 || rec.UID != 0 || rec.GID != 0 {
			t.Errorf("%s after %s: %+v", rec.Name, last, rec.Info)
		}
		last = rec.Name
		all[rec.Name] = rec
		if rec.Name == programPath { // it comes before all others
			last = ""
			if len(all) > 3 {
				t.Errorf("%d entries before the program", len(all)-1)
			}
		}
	}
	return all
}

func content(t *testing.T, all map[string]cpio.Record, name string) string {
	t.Helper()
	rec, ok := all[name]
	if !ok {
		t.Errorf("%s is not in the archive", name)
		return ""
	}
	if rec.ReaderAt == nil {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(rec, 0, int64(rec.FileSize)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sampleConfig(t *testing.T) Config {
	t.Helper()
	binary, firmware := filepath.Join(t.TempDir(), "ssi"), t.TempDir()
	for file, text := range map[string]string{binary: "#!ssi", filepath.Join(firmware, "bnx2/a.fw.xz"): "fw"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Config{
		Binary: binary, Tree: sampleTree(t), Classes: []string{"server"}, Modules: []string{"nosuch"}, Firmware: firmware,
		Files: []File{{Path: "/etc/ssi/ssi.toml", Data: []byte("name = \"x\"\n")}, {Path: "/etc/ssi/join", Mode: 0o600, Source: binary}},
		Dirs:  []string{"/mnt/root", "/tmp"}, Links: []Link{{"/bin/onnode", "../sbin/ssi"}},
	}
}

// Two builds are the same bytes; what is in them is what was asked for.
func TestBuild(t *testing.T) {
	for _, c := range []Compression{Zstd, Gzip, None} {
		cfg := sampleConfig(t)
		cfg.Compress = c
		dir := t.TempDir()
		r, err := Build(t.Context(), cfg, filepath.Join(dir, "a"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := Build(t.Context(), cfg, filepath.Join(dir, "b"))
		if err != nil {
			t.Fatal(err)
		}
		a, _ := os.ReadFile(filepath.Join(dir, "a"))
		b, _ := os.ReadFile(filepath.Join(dir, "b"))
		sum := sha256.Sum256(a)
		if !bytes.Equal(a, b) || r.SHA256 != again.SHA256 || r.SHA256 != hex.EncodeToString(sum[:]) || r.Size != int64(len(a)) || len(a)%4 != 0 {
			t.Errorf("%s: two builds, or sum and size, differ: %+v, %+v", c, r, again)
		}
		if want := []string{"bnx2", "bonding", "crc32c_generic", "ext4", "jbd2", "tls"}; r.Version != version || !slices.Equal(r.Modules, want) {
			t.Errorf("%s: version %s, modules %v", c, r.Version, r.Modules)
		}
		if !slices.Contains(r.Absent, "nosuch") || slices.Contains(r.Absent, "fuse") || !slices.Equal(r.Firmware, []string{"bnx2/a.fw.xz"}) {
			t.Errorf("%s: absent %v, firmware %v", c, r.Absent, r.Firmware)
		}
		all := unpack(t, a, c)
		for name, want := range map[string]string{
			"init": "sbin/ssi", "sbin/ssi": "#!ssi", "etc/ssi/ssi.toml": "name = \"x\"\n", "etc/ssi/join": "#!ssi", "bin/onnode": "../sbin/ssi",
			"lib/firmware/bnx2/a.fw.xz":                     "fw",
			"lib/modules/" + version + "/kernel/net/tls.ko": string(mod(t, ".ko", "name=tls", "depends=")),
		} {
			if got := content(t, all, name); got != want {
				t.Errorf("%s: /%s is %q", c, name, got)
			}
		}
		if dep := content(t, all, "lib/modules/"+version+"/modules.dep"); !strings.Contains(dep, "kernel/net/bonding.ko: kernel/net/tls.ko\n") {
			t.Errorf("modules.dep is %s", dep)
		}
		for name, mode := range map[string]uint64{"dev/console": unix.S_IFCHR | 0o600, "dev/null": unix.S_IFCHR | 0o666, "etc/ssi/join": unix.S_IFREG | 0o600,
			"mnt/root": unix.S_IFDIR | 0o755, "tmp": unix.S_IFDIR | 0o1777, "init": unix.S_IFLNK | 0o777, "sbin/ssi": unix.S_IFREG | 0o755} {
			if all[name].Mode != mode {
				t.Errorf("%s: mode of /%s is %o", c, name, all[name].Mode)
			}
		}
		if d := all["dev/console"]; d.Rmajor != 5 || d.Rminor != 1 {
			t.Errorf("/dev/console is %d:%d", d.Rmajor, d.Rminor)
		}
	}
}

// Each mistake is one clear line, and the file that was there stays.
func TestBuildBad(t *testing.T) {
	whole := mod(t, ".ko", "name=ext4", "depends=")
	one := func(name string, b []byte) string { return modtree(t, map[string][]byte{"kernel/fs/" + name: b}) }
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no binary":        {func(c *Config) { c.Binary = "/nosuch" }, "the ssi program: stat /nosuch: no such file"},
		"no tree":          {func(c *Config) { c.Tree = "/nosuch/6.12" }, "/nosuch/6.12: no such file"},
		"truncated module": {func(c *Config) { c.Tree = one("ext4.ko", whole[:len(whole)-9]) }, "ext4.ko: this is no whole kernel module"},
		"truncated xz":     {func(c *Config) { c.Tree = one("ext4.ko.xz", compress(t, ".xz", whole)[:70]) }, "ext4.ko.xz: read module: its compressed data is truncated"},
		"garbage":          {func(c *Config) { c.Tree = one("ext4.ko", []byte("garbage")) }, "ext4.ko: this is no whole kernel module"},
		"other kernel":     {func(c *Config) { c.Tree = one("ext4.ko", module("name=ext4", "vermagic=6.1.0 SMP")) }, `is made for kernel "6.1.0", not for 6.12.0-test`},
		"no machine":       {func(c *Config) { c.Tree = one("snd.ko", mod(t, ".ko", "name=snd")) }, "has none of the modules of a machine"},
		"class":            {func(c *Config) { c.Classes = []string{"toaster"} }, `hardware class "toaster" is not known: use vm, usb`},
		"compression":      {func(c *Config) { c.Compress = "zip" }, `compression "zip" is not known`},
		"twice":            {func(c *Config) { c.Links = []Link{{"/sbin/ssi", "x"}} }, "/sbin/ssi is in the archive twice"},
		"relative":         {func(c *Config) { c.Dirs = []string{"/"} }, "is the root itself"},
		"below a file":     {func(c *Config) { c.Files = []File{{Path: "/sbin/ssi/x"}} }, "/sbin/ssi is no directory"},
		"no program":       {func(c *Config) { c.Programs = []Program{{Source: "/nosuch"}} }, "program /nosuch: stat"},
		"kernel":           {func(c *Config) { c.Kernel = c.Binary }, "no kernel: it has only 5 bytes"},
	} {
		cfg := sampleConfig(t)
		c.change(&cfg)
		dir := t.TempDir()
		out := filepath.Join(dir, "initramfs")
		if err := os.WriteFile(out, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Build(t.Context(), cfg, out)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		onlyOld(t, dir)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ended, sampleConfig(t), filepath.Join(t.TempDir(), "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func onlyOld(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v are left", entries, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "initramfs")); err != nil || string(b) != "old" {
		t.Errorf("the old file is %q, %v", b, err)
	}
}

// A full disk keeps the old file and leaves no new one.
func TestBuildDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	cfg := sampleConfig(t)
	cfg.Compress = None
	cfg.Files = append(cfg.Files, File{Path: "/big", Data: make([]byte, 256<<10)})
	dir := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its mounts
		err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("small", dir, "tmpfs", 0, "size=128k"))
		if err != nil {
			t.Errorf("mount: %v", err)
			return
		}
		out := filepath.Join(dir, "initramfs")
		if err := os.WriteFile(out, []byte("old"), 0o600); err != nil {
			t.Error(err)
			return
		}
		_, err = Build(context.Background(), cfg, out)
		if !errors.Is(err, unix.ENOSPC) || !strings.HasSuffix(err.Error(), "make room in "+dir+" and try again") {
			t.Errorf("error: %v", err)
		}
		onlyOld(t, dir)
	}()
	<-done
}

// Programs run with nothing but the libraries that were found for them.
func TestPrograms(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to change the root directory")
	}
	if b, err := os.ReadFile("/bin/bash"); err != nil || !bytes.Contains(b, []byte("libc.so.6")) {
		t.Skip("/bin/bash is missing or static")
	}
	cfg := sampleConfig(t)
	cfg.Tree, cfg.Compress = "", None
	cfg.Programs = []Program{{Source: "/bin/bash"}, {Source: "/bin/ls", Path: "/usr/bin/dir-of"}}
	script := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(script, []byte("#!/bin/bash\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg.Programs = append(cfg.Programs, Program{Source: script, Path: "/bin/script"})
	var b bytes.Buffer
	if _, err := Write(t.Context(), cfg, &b); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for name, rec := range unpack(t, b.Bytes(), None) {
		if rec.Mode&unix.S_IFMT == unix.S_IFREG {
			file := filepath.Join(root, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content(t, map[string]cpio.Record{name: rec}, name)), 0o755)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command("/bin/bash", "-c", "/usr/bin/dir-of /bin; echo ok")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "bash\nscript\nok\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestOverlay(t *testing.T) {
	b, err := Overlay([]File{{Path: "/etc/ssi/join", Mode: 0o600, Data: []byte("token")}})
	if err != nil {
		t.Fatal(err)
	}
	all := unpack(t, b, None)
	if len(all) != 3 || content(t, all, "etc/ssi/join") != "token" || len(b)%4 != 0 {
		t.Errorf("%v", all)
	}
	for _, bad := range []File{{Path: "etc/../.."}, {Path: "/x", Mode: 0o100644}, {Path: "/x", Source: "/nosuch"}, {Path: "/a\x00b"}} {
		if _, err := Overlay([]File{bad}); err == nil {
			t.Errorf("%+v is packed", bad)
		}
	}
}

// Every class has modules, and what the table calls a class is one.
func TestClasses(t *testing.T) {
	base, err := patterns(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Classes() {
		p, err := patterns([]string{c})
		if err != nil || len(p) <= len(base) {
			t.Errorf("%s: %d patterns, %v", c, len(p), err)
		}
		// A machine whose class is wrong can still say so.
		for _, nic := range []string{"virtio_net", "e1000", "e1000e", "igb", "ixgbe", "r8169", "tg3", "bnxt_en", "mlx4_en", "mlx5_core"} {
			if !slices.Contains(p, nic) {
				t.Errorf("%s has no %s", c, nic)
			}
		}
	}
	for line := range strings.Lines(classes) {
		if w := strings.Fields(line); len(w) > 0 && w[0] != "base" && w[0] != "fallback" && !slices.Contains(Classes(), w[0]) {
			t.Errorf("%s in the table is no class", w[0])
		}
		for _, w := range strings.Fields(line) {
			if c, ok := strings.CutPrefix(w, "+"); ok && !slices.Contains(Classes(), c) {
				t.Errorf("%s is no class", w)
			}
		}
	}
}
