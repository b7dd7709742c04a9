package loader

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ssi/internal/vm"
	"ssi/internal/vmtest"
	"ssi/netboot/tftp"
)

// tftpEnv names the directory that a process serves by TFTP for a test: all of
// its threads are in the network namespace of the test.
const tftpEnv = "SSI_TEST_TFTP"

// lateEnv names the file that is there only after the first request for it.
const lateEnv = "SSI_TEST_TFTP_LATE"

// A machine boots by PXELINUX with the configuration, all of it by TFTP. First
// the kernel is not there, and it tries again by itself.
func TestPXELINUXBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: machines take long, and -short is set")
	}
	dir := t.TempDir()
	found, missing := Find("/")
	for _, m := range missing {
		if m.Name == Pxelinux || m.Name == Ldlinux {
			t.Skip(m)
		}
	}
	n := vmtest.New(t, 1)
	paths := map[string]string{"vmlinuz": vmtest.CloudKernel(t).Image}
	for _, l := range found {
		if l.Name == Pxelinux || l.Name == Ldlinux {
			paths[l.Name] = l.Path
		}
	}
	for name, path := range paths {
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	config, err := Boot{Kernel: "vmlinuz", Initramfs: "initrd.img", BootIF: true, Cmdline: Cmdline{{"console", "ttyS0"}, {"panic", "-1"}, {"quiet", ""}}}.PXELINUX()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "pxelinux.cfg"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"pxelinux.cfg/default": config, "initrd.img": busybox(t, "PXELINUX BOOTED")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ns := lan(t, n)
	defer startDHCP(t, ns, "--dhcp-boot="+Pxelinux+",192.0.2.1,192.0.2.1")()
	defer startTFTP(t, ns, dir, "vmlinuz")()
	m := n.Machine(vm.Spec{Name: "pxelinux", Boot: vm.BootNetwork, Memory: 512, NICs: []vm.NIC{{Segment: "lan"}}})
	m.Start()
	m.Say(`ssi: loading kernel and initramfs`)
	m.Say(`PXELINUX BOOTED .*console=ttyS0 panic=-1 quiet`)
	m.Off()
}

// A machine with UEFI and without iPXE boots a unified kernel image by TFTP. It
// asks for the size first and ends that transfer.
func TestUEFIBootsByTFTP(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: machines take long, and -short is set")
	}
	dir := t.TempDir()
	n := vmtest.New(t, 1)
	writeUKI(t, filepath.Join(dir, "ssi.efi"))
	ns := lan(t, n)
	defer startDHCP(t, ns, "--dhcp-boot=ssi.efi,192.0.2.1,192.0.2.1")()
	defer startTFTP(t, ns, dir, "")()
	m := n.Machine(vm.Spec{Name: "uefi", Firmware: vm.UEFI, Boot: vm.BootNetwork, NoROM: true, Memory: 512, NICs: []vm.NIC{{Segment: "lan"}}})
	m.Start()
	m.Say(`UKI BOOTED console=ttyS0 panic=-1 quiet ssi\.text="two words"`)
	m.Off()
}

// startTFTP serves dir by TFTP in another process; the function ends it.
func startTFTP(t *testing.T, ns *vm.Netns, dir, late string) func() {
	server := exec.Command("/proc/self/exe", "-test.run=^TestServeTFTP$", "-test.v")
	server.Env = append(os.Environ(), tftpEnv+"="+dir, lateEnv+"="+late)
	stop, err := server.StdinPipe() // it ends when this is closed
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	server.Stdout, server.Stderr = log, log
	if err := ns.Do(server.Start); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = stop.Close()
		if err := server.Wait(); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(log.Name()); err == nil {
			t.Logf("%s", text)
		}
		_ = log.Close()
	}
}

// TestServeTFTP is the process of startTFTP.
func TestServeTFTP(t *testing.T) {
	dir, late := os.Getenv(tftpEnv), os.Getenv(lateEnv)
	if dir == "" {
		t.Skip("it is started by the tests with machines")
	}
	entries := map[string]Entry{}
	for _, name := range []string{Pxelinux, Ldlinux, "pxelinux.cfg/default", "vmlinuz", "initrd.img", "ssi.efi"} {
		e, err := File(filepath.Join(dir, name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		entries[name] = e
	}
	var shelf Shelf
	put := func(without string) {
		now := maps.Clone(entries)
		delete(now, without)
		tree, err := NewTree(now)
		if err != nil {
			panic(err)
		}
		shelf.Put(tree)
	}
	put(late)
	c, err := tftp.Listen(netip.MustParseAddrPort("0.0.0.0:69"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := tftp.New(c, tftp.Config{Files: &shelf, Log: func(r tftp.Transfer) {
		fmt.Printf("%s %q: %d of %d bytes in %s, probe %v, %v\n", r.Client, r.Name, r.Bytes, r.Size, r.Duration, r.Probe, r.Err)
		if r.Name == late && r.Err != nil {
			put("")
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
