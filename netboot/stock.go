package netboot

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/config"
	"ssi/netboot/initramfs"
	"ssi/netboot/loader"
)

// The names of the boot files that are made here, in the tree and on disk. The
// others have those of package loader.
const (
	kernelName    = "vmlinuz"
	initramfsName = "initrd.img"
	ukiName       = "linuxx64.efi"
	stampName     = "made-of" // what kernel and initramfs were made of; not in the tree

	// Given is the content of the file made-of beside a kernel and an initramfs
	// that somebody else made and put there: they are served as they are.
	Given = "given\n"
)

// stock is the boot files of this machine, in a directory of its own.
type stock struct {
	dir  string // where they are kept
	root string // where kernel, modules and loaders are installed: "/"

	known known // files that were checked
}

// kernel is where the kernel to boot and its modules are.
func (s *stock) kernel(c config.Netboot) (path, modules string, err error) {
	if filepath.IsAbs(c.Kernel) {
		path = filepath.Join(s.root, c.Kernel)
		k, err := initramfs.KernelImage(path)
		if err != nil {
			return "", "", err
		}
		return path, s.modules(c, k.Version), nil
	}
	release := c.Kernel
	if release == "" {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return "", "", fmt.Errorf("uname: %w", err)
		}
		release = unix.ByteSliceToString(u.Release[:])
	}
	path = filepath.Join(s.root, "/boot/vmlinuz-"+release)
	return path, s.modules(c, release), nil
}

func (s *stock) modules(c config.Netboot, release string) string {
	if c.Modules != "" {
		return filepath.Join(s.root, c.Modules)
	}
	return filepath.Join(s.root, "/lib/modules", release)
}

// make makes kernel and initramfs from what is installed on this machine, or the
// initramfs of a class, unless they were made of the same before.
func (s *stock) make(ctx context.Context, c config.Netboot, class string, conf initramfs.Config) (built initramfs.Result, news bool, err error) {
	if s.given() {
		return built, false, nil
	}
	kernel, modules, err := s.kernel(c)
	if err != nil {
		return built, false, err
	}
	conf.Kernel, conf.Tree, conf.Root = kernel, modules, s.root
	if class != "" {
		conf.Classes = []string{class}
	}
	conf.Classes = append(slices.Clone(conf.Classes), c.Classes...)
	for _, path := range c.Include {
		conf.Programs = append(conf.Programs, initramfs.Program{Source: path})
	}
	stamp, err := stampOf(conf)
	if err != nil {
		return built, false, err
	}
	if old, err := os.ReadFile(s.path(classStamp(class))); err == nil && string(old) == stamp {
		return built, false, nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return built, false, err
	}
	if err := os.Remove(s.path(classStamp(class))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return built, false, err
	}
	if class == "" {
		for _, c := range initramfs.Classes() { // they are of what was before
			if err := s.drop(c); err != nil {
				return built, false, err
			}
		}
	}
	if built, err = initramfs.Build(ctx, conf, s.path(classImage(class))); err != nil {
		return built, false, err
	}
	if class == "" {
		if err := install(kernel, s.path(kernelName)); err != nil {
			return built, false, err
		}
	}
	return built, true, write(s.path(classStamp(class)), []byte(stamp))
}

// stampOf describes what an initramfs is made of: its description, and size and
// time of the files in it that may change under the same name.
func stampOf(c initramfs.Config) (string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	files := []string{c.Binary, c.Kernel, c.Tree, filepath.Join(c.Tree, "modules.dep")}
	for _, p := range c.Programs {
		files = append(files, filepath.Join(c.Root, p.Source))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", text)
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", name, err) // who needs it says so
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
	}
	return b.String(), nil
}

// MakeFiles makes kernel and initramfs in dir from what is installed below root,
// as the settings and conf say, unless that was done already; news says that it was not.
// With a hardware class it makes only the initramfs of that, in place of conf's
// classes. It takes a minute of a slow processor.
func MakeFiles(ctx context.Context, dir, root string, c config.Netboot, class string, conf initramfs.Config) (built initramfs.Result, news bool, err error) {
	if class != "" && !slices.Contains(initramfs.Classes(), class) {
		return built, false, fmt.Errorf("hardware class %.64q is not known: use %s", class, strings.Join(initramfs.Classes(), ", "))
	}
	return (&stock{dir: dir, root: root}).make(ctx, c, class, conf)
}

func (s *stock) path(name string) string { return filepath.Join(s.dir, name) }

// install copies a file, at once or not at all.
func install(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return write(to, b)
}

// write writes a file, at once or not at all.
func write(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

// given reports whether somebody else put kernel and initramfs here.
func (s *stock) given() bool {
	stamp, err := os.ReadFile(s.path(stampName))
	return err == nil && string(stamp) == Given
}

// installed reports whether this machine has the boot files or can make them.
func (s *stock) installed(c config.Netboot) bool {
	if s.given() {
		return true
	}
	kernel, modules, err := s.kernel(c)
	if err != nil {
		return false
	}
	_, err = os.Stat(kernel)
	_, err2 := os.Stat(modules)
	return err == nil && err2 == nil
}

// collect checks all boot files that are here: those that were made, and the
// loaders that are installed or were fetched.
func (s *stock) collect() (map[string]loader.Entry, error) {
	entries := map[string]loader.Entry{}
	for name, check := range map[string]loader.Check{kernelName: loader.KernelCheck(loader.BIOS), initramfsName: loader.InitramfsCheck} {
		e, err := s.entry(name, check)
		if err != nil {
			return nil, err
		}
		entries[name] = e
	}
	found, _ := loader.Find(s.root)
	for _, l := range found {
		e, err := l.Entry()
		if err != nil {
			return nil, err
		}
		entries[l.Name] = e
	}
	for _, name := range loaderNames() {
		if _, ok := entries[name]; ok {
			continue
		}
		e, err := s.entry(name, nil)
		switch {
		case err == nil:
			entries[name] = e
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return entries, nil
}

func loaderNames() []string {
	return []string{loader.Undionly, loader.SNPOnly, loader.IPXE, loader.SNPOnlyARM, loader.Pxelinux, loader.LPxelinux, loader.Ldlinux, loader.StubX64}
}

// listFiles describes entries.
func listFiles(entries map[string]loader.Entry) []File {
	var files []File
	for name, e := range entries {
		sum := e.Sum()
		files = append(files, File{Name: name, Size: e.Size(), Sum: hex.EncodeToString(sum[:])})
	}
	return files
}

// unified makes the image for UEFI without another loader, if its first part is
// there. It names this server, so each init makes its own.
func (s *stock) unified(entries map[string]loader.Entry, boot loader.Boot, release string) error {
	stub, ok := entries[loader.StubX64]
	if !ok {
		return nil
	}
	code, err := os.ReadFile(stub.Path())
	if err != nil {
		return err
	}
	section := func(name string) (loader.Section, *os.File, error) {
		f, err := os.Open(entries[name].Path())
		return loader.Section{Data: f, Size: entries[name].Size()}, f, err
	}
	kernel, kf, err := section(kernelName)
	if err != nil {
		return err
	}
	defer func() { _ = kf.Close() }()
	initrd, inf, err := section(initramfsName)
	if err != nil {
		return err
	}
	defer func() { _ = inf.Close() }()
	out, err := os.CreateTemp(s.dir, ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(out.Name()) }()
	uki := loader.UKI{Stub: code, Firmware: loader.UEFIx64, Kernel: kernel, Initramfs: initrd, Cmdline: boot.Cmdline,
		OSRelease: "ID=ssi\nNAME=ssi\nPRETTY_NAME=\"ssi\"\n", Release: release}
	_, err = uki.Write(out)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("unified kernel image: %w", err)
	}
	if err := os.Rename(out.Name(), s.path(ukiName)); err != nil {
		return err
	}
	e, err := loader.File(s.path(ukiName), ukiCheck)
	if err != nil {
		return err
	}
	entries[ukiName] = e
	return nil
}
