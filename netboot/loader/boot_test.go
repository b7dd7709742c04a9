package loader

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ssi/internal/vm"
	"ssi/internal/vmtest"
)

// An image boots in a machine with UEFI, with its command line and initramfs.
func TestUKIBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: machines take long, and -short is set")
	}
	n := vmtest.New(t, 1)
	dir := t.TempDir()
	esp := filepath.Join(dir, "esp/EFI/BOOT")
	if err := os.MkdirAll(esp, 0o700); err != nil {
		t.Fatal(err)
	}
	writeUKI(t, filepath.Join(esp, "BOOTX64.EFI")) // what UEFI starts when it was told nothing
	// The disk of the machine is empty: QEMU makes the file system of the other
	// one from the directory.
	disk := filepath.Join(dir, "disk")
	if err := vm.CreateDisk(disk, 1<<20); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	m := n.Machine(vm.Spec{
		Name: "uki", Firmware: vm.UEFI, Boot: vm.BootDisk, Memory: 512,
		Disks: []vm.Disk{{Path: disk}},
		Extra: []string{"-drive", "if=none,id=esp,format=raw,readonly=on,file=fat:" + filepath.Join(dir, "esp"), "-device", "virtio-blk-pci,drive=esp,bootindex=0"},
	})
	m.Start()
	m.Say(`UKI BOOTED console=ttyS0 panic=-1 quiet ssi\.text="two words"`)
	m.Off()
	t.Logf("power-on to power-off in %.1f s", time.Since(begun).Seconds())
}

// writeUKI makes an image that says UKI BOOTED and its command line.
func writeUKI(t *testing.T, path string) {
	k := vmtest.CloudKernel(t)
	image, err := File(k.Image, KernelCheck(UEFIx64))
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := os.Open(k.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = kernel.Close() }()
	if got := Release(kernel, image.Size()); got != k.Version {
		t.Errorf("the kernel says it is %q, not %q", got, k.Version)
	}
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	u := UKI{
		Stub: stub(t), Firmware: UEFIx64, Kernel: Section{Data: kernel, Size: image.Size()}, Initramfs: section("", busybox(t, "UKI BOOTED")),
		Cmdline:   Cmdline{{"console", "ttyS0"}, {"panic", "-1"}, {"quiet", ""}, {"ssi.text", "two words"}},
		OSRelease: "ID=ssi\nNAME=ssi\n", Release: k.Version,
	}
	if _, err := u.Write(out); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := File(path, UKICheck(UEFIx64)); err != nil {
		t.Fatal(err)
	}
}

// busybox is an initramfs that shows its command line and ends the machine.
func busybox(t *testing.T, says string) []byte {
	path := "/bin/busybox"
	program, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("%v: apt install busybox-static", err)
	}
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Skipf("%s is not static: apt install busybox-static", path)
		}
	}
	var b bytes.Buffer
	add := func(name string, mode int, data string) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", b.Len()+1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		b.Write(make([]byte, pad4(cpioHeader+int64(len(name)+1))))
		b.WriteString(data)
		b.Write(make([]byte, pad4(int64(len(data)))))
	}
	add("proc", 0o040755, "")
	add("bin", 0o040755, "")
	add("bin/busybox", 0o100755, string(program))
	add("init", 0o100755, "#!/bin/busybox sh\n/bin/busybox mount -t proc proc /proc\nread line < /proc/cmdline\necho \""+says+" $line\"\n/bin/busybox poweroff -f\n")
	add(cpioEnd, 0, "")
	return gz(b.Bytes())
}
