package loader

import (
	"bufio"
	"fmt"
	"io"
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

// A machine boots by PXELINUX with the configuration, all of it by TFTP. First
// the kernel is not there, and it tries again by itself.
func TestPXELINUXBoots(t *testing.T) {
	if dir := os.Getenv(tftpEnv); dir != "" {
		serveTFTP(t, dir)
		return
	}
	if testing.Short() {
		t.Skip("skipped: machines take long, and -short is set")
	}
	dir := t.TempDir()
	found, missing := Find("/")
	paths := map[string]string{}
	for _, l := range found {
		paths[l.Name] = l.Path
	}
	for _, m := range missing {
		if m.Name == Pxelinux || m.Name == Ldlinux {
			t.Skip(m)
		}
	}
	n := vmtest.New(t, 1)
	paths["vmlinuz"] = vmtest.CloudKernel(t).Image
	config, err := Boot{Kernel: "vmlinuz", Initramfs: "initrd.img", BootIF: true, Cmdline: Cmdline{{"console", "ttyS0"}, {"panic", "-1"}, {"quiet", ""}}}.PXELINUX()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"default": config, "initrd.img": busybox(t, "PXELINUX BOOTED")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{Pxelinux, Ldlinux, "vmlinuz"} {
		if err := os.Symlink(paths[name], filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	ns := n.Netns("lan", "lan0", "192.0.2.1/24")
	dhcp := startDHCP(t, ns, "--dhcp-boot="+Pxelinux+",192.0.2.1,192.0.2.1")
	defer dhcp()
	server := exec.Command("/proc/self/exe", "-test.run=^TestPXELINUXBoots$", "-test.v")
	server.Env = append(os.Environ(), tftpEnv+"="+dir)
	stop, err := server.StdinPipe() // it ends when this is closed
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	server.Stdout, server.Stderr = log, log
	if err := ns.Do(server.Start); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stop.Close()
		if err := server.Wait(); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(log.Name()); err == nil {
			t.Logf("%s", text)
		}
		_ = log.Close()
	}()
	m := n.Machine(vm.Spec{Name: "pxelinux", Boot: vm.BootNetwork, Memory: 512, NICs: []vm.NIC{{Segment: "lan"}}})
	m.Start()
	m.Say(`ssi: loading kernel and initramfs`)
	m.Say(`PXELINUX BOOTED .*console=ttyS0 panic=-1 quiet`)
	m.Off()
}

// serveTFTP serves dir until its input ends; the kernel only after the first
// request for it.
func serveTFTP(t *testing.T, dir string) {
	entries := map[string]Entry{}
	for name, path := range map[string]string{Pxelinux: Pxelinux, Ldlinux: Ldlinux, "pxelinux.cfg/default": "default", "initrd.img": "initrd.img"} {
		e, err := File(filepath.Join(dir, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		entries[name] = e
	}
	kernel, err := File(filepath.Join(dir, "vmlinuz"), KernelCheck(BIOS))
	if err != nil {
		t.Fatal(err)
	}
	var shelf Shelf
	put := func() {
		tree, err := NewTree(entries)
		if err != nil {
			panic(err)
		}
		shelf.Put(tree)
	}
	put()
	entries["vmlinuz"] = kernel
	c, err := tftp.Listen(netip.MustParseAddrPort("0.0.0.0:69"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := tftp.New(c, tftp.Config{Files: &shelf, Log: func(r tftp.Transfer) {
		fmt.Printf("%s %q: %d of %d bytes in %s, probe %v, %v\n", r.Client, r.Name, r.Bytes, r.Size, r.Duration, r.Probe, r.Err)
		if r.Name == "vmlinuz" && r.Err != nil {
			put()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, bufio.NewReader(os.Stdin))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
