package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ssi/internal/kmod"
)

const (
	downloadTime = 5 * time.Minute
	// tryKernels is how many of the newest packages are tried: the oldest lists of
	// apt name packages that the archive does not have any more.
	tryKernels = 3
	sumFile    = "sha256" // of the kernel, beside it
)

// Kernel is an unpacked kernel package.
type Kernel struct {
	Version string // as `uname -r` says it
	Image   string // the bzImage
	Modules string // the directory lib/modules/VERSION
}

// flavour is the end of a version, which tells what a kernel is made for.
type flavour string

const (
	cloud   flavour = "-cloud-amd64" // machines under a hypervisor
	generic flavour = "-amd64"       // all others, too
)

// CloudKernel is the newest of Debian's 6.12 cloud kernels for amd64 that is in
// the cache. If there is none it fetches the newest that apt knows; it skips the
// test if that cannot be had.
func CloudKernel(t testing.TB) Kernel { t.Helper(); return kernelOf(t, "kernel", cloud) }

// GenericKernel is the same for the kernel of ordinary computers, which is three
// times as large.
func GenericKernel(t testing.TB) Kernel { t.Helper(); return kernelOf(t, "kernel-generic", generic) }

func kernelOf(t testing.TB, name string, what flavour) Kernel {
	t.Helper()
	dir := cacheDir(t, name)
	ctx, cancel := testContext(t)
	defer cancel()
	held, err := lock(ctx, cacheDir(t, "locks"), "kernel")
	if err != nil {
		t.Fatalf("kernel of the machines: %v", err)
	}
	defer held.Close()
	if k, ok := cachedKernel(t, dir, what); ok {
		return k
	}
	ctx, cancel = context.WithTimeout(ctx, downloadTime)
	defer cancel()
	k, err := fetchKernel(ctx, dir, what)
	if err != nil {
		t.Skipf("skipped: no kernel for the machines: %v", err)
	}
	return k
}

// cachedKernel is the newest whole kernel in the cache. What is not whole it
// removes.
func cachedKernel(t testing.TB, dir string, what flavour) (Kernel, bool) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatalf("cache of kernels: %v", err)
	}
	var versions []string
	for _, e := range entries {
		versions = append(versions, e.Name())
	}
	for _, v := range newest(versions, "", what) {
		k, err := openKernel(filepath.Join(dir, v), v)
		if err == nil {
			return k, true
		}
		t.Logf("kernel %s in the cache is damaged and is removed: %v", v, err)
		if err := os.RemoveAll(filepath.Join(dir, v)); err != nil {
			t.Fatal(err)
		}
	}
	return Kernel{}, false
}

// openKernel checks an unpacked kernel.
func openKernel(dir, version string) (Kernel, error) {
	k := Kernel{Version: version, Image: filepath.Join(dir, "boot", "vmlinuz-"+version)}
	for _, lib := range []string{"lib", "usr/lib"} { // Debian 12, Debian 13
		if m := filepath.Join(dir, lib, "modules", version); isDir(filepath.Join(m, "kernel")) {
			k.Modules = m
		}
	}
	if k.Modules == "" {
		return k, errors.New("it has no modules")
	}
	want, err := os.ReadFile(filepath.Join(dir, sumFile))
	if err != nil {
		return k, err
	}
	have, err := sum(k.Image)
	if err != nil {
		return k, err
	}
	if have != strings.TrimSpace(string(want)) {
		return k, fmt.Errorf("%s changed", k.Image)
	}
	return k, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

const packagePrefix = "linux-image-"

// newest are the names of 6.12 kernels of a flavour, the newest first; other names are
// left out. Names are a prefix and a version, such as 6.12.100+deb12-cloud-amd64.
func newest(names []string, prefix string, what flavour) []string {
	re := regexp.MustCompile(`^` + regexp.QuoteMeta(prefix) + `6\.12\.(\d+)\+deb(\d+)(?:\.(\d+))?` + regexp.QuoteMeta(string(what)) + `$`)
	type kernel struct {
		name    string
		version [3]int
	}
	var found []kernel
	for _, name := range names {
		m := re.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		k := kernel{name: name}
		for i := range k.version {
			k.version[i], _ = strconv.Atoi(m[i+1]) // what is left out is 0
		}
		found = append(found, k)
	}
	slices.SortFunc(found, func(a, b kernel) int { return slices.Compare(b.version[:], a.version[:]) })
	var sorted []string
	for _, k := range found {
		sorted = append(sorted, k.name)
	}
	return sorted
}

// fetchKernel downloads the newest kernel package, which apt verifies, and
// unpacks it without running its scripts.
func fetchKernel(ctx context.Context, dir string, what flavour) (Kernel, error) {
	out, err := run(ctx, "", "apt-cache", "search", "--names-only", `^linux-image-6\.12\..*`+string(what)+"$")
	if err != nil {
		return Kernel{}, err
	}
	var names []string
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	names = newest(names, packagePrefix, what)
	if len(names) == 0 {
		return Kernel{}, fmt.Errorf("apt knows no package linux-image-6.12.*%s: add Debian 12's backports, or Debian 13, to its sources and run apt-get update", what)
	}
	var errs []error
	for _, name := range names[:min(tryKernels, len(names))] {
		k, err := unpackKernel(ctx, dir, name)
		if err == nil {
			return k, nil
		}
		errs = append(errs, err)
	}
	return Kernel{}, errors.Join(errs...)
}

func unpackKernel(ctx context.Context, dir, name string) (Kernel, error) {
	version := strings.TrimPrefix(name, packagePrefix)
	tmp, err := os.MkdirTemp(dir, ".new-*")
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	// apt's own user cannot write here; it has verified the file when it is done.
	if _, err := run(ctx, tmp, "apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", name); err != nil {
		return Kernel{}, err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return Kernel{}, fmt.Errorf("apt-get download %s left %d packages: %v", name, len(debs), err) //nolint:errorlint // it may be nil
	}
	if is, err := run(ctx, tmp, "dpkg-deb", "-f", debs[0], "Package"); err != nil || strings.TrimSpace(is) != name {
		return Kernel{}, fmt.Errorf("apt-get download %s brought the package %q: %v", name, is, err) //nolint:errorlint // it may be nil
	}
	root := filepath.Join(tmp, "root")
	if _, err := run(ctx, tmp, "dpkg", "-x", debs[0], root); err != nil {
		return Kernel{}, err
	}
	// What the package's scripts would do; without it every user scans all modules.
	index, err := kmod.Open(filepath.Join(root, "lib/modules", version))
	if err != nil {
		return Kernel{}, err
	}
	if err := index.Save(); err != nil {
		return Kernel{}, err
	}
	hash, err := sum(filepath.Join(root, "boot", "vmlinuz-"+version))
	if err != nil {
		return Kernel{}, err
	}
	if err := os.WriteFile(filepath.Join(root, sumFile), []byte(hash+"\n"), 0o644); err != nil {
		return Kernel{}, err
	}
	if _, err := openKernel(root, version); err != nil {
		return Kernel{}, fmt.Errorf("package %s: %w", name, err)
	}
	whole := filepath.Join(dir, version)
	if err := os.Rename(root, whole); err != nil {
		return Kernel{}, err
	}
	return openKernel(whole, version)
}

// run is the standard output of a program.
func run(ctx context.Context, dir string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
