package vm

import (
	"fmt"
	"strconv"
	"strings"
)

// files are the descriptors that QEMU inherits, by their numbers there.
type files struct {
	serial, monitor int
	nics            []int
}

// args is the command line of QEMU for a checked Spec. nvram is the file of the
// firmware's variables, for UEFI.
func (s Spec) args(fw firmware, nvram string, f files) []string {
	a := []string{
		"-name", s.Name, "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
		"-machine", "pc,graphics=off,accel=tcg", "-cpu", s.CPU,
		"-smp", strconv.Itoa(s.CPUs), "-m", strconv.Itoa(s.Memory),
		"-chardev", fmt.Sprintf("socket,id=s0,fd=%d", f.serial), "-serial", "chardev:s0",
		"-chardev", fmt.Sprintf("socket,id=q0,fd=%d", f.monitor), "-mon", "chardev=q0,mode=control",
		"-device", "virtio-rng-pci",
	}
	if !s.Reboot {
		a = append(a, "-no-reboot")
	}
	if s.Firmware == UEFI {
		a = append(a,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+option(fw.code),
			"-drive", "if=pflash,unit=1,format=raw,file="+option(nvram))
	}
	if s.Boot == BootKernel {
		a = append(a, "-kernel", s.Kernel)
		if s.Initrd != "" {
			a = append(a, "-initrd", s.Initrd)
		}
		if s.Append != "" {
			a = append(a, "-append", s.Append)
		}
	} else {
		a = append(a, "-boot", "strict=on")
	}
	for i, n := range s.NICs {
		device := fmt.Sprintf("%s,id=%s,netdev=n%d,mac=%v", n.Model, nicID(i), i, n.MAC)
		if s.Boot == BootNetwork {
			device += fmt.Sprintf(",bootindex=%d", i+1)
		}
		if s.NoROM || s.Boot == BootKernel {
			device += ",romfile="
		}
		a = append(a, "-netdev", fmt.Sprintf("stream,id=n%d,server=off,addr.type=fd,addr.str=%d", i, f.nics[i]), "-device", device)
	}
	for i, d := range s.Disks {
		device := fmt.Sprintf("%s,id=disk%d,drive=d%d", d.Model, i, i)
		if s.Boot == BootDisk {
			device += fmt.Sprintf(",bootindex=%d", i+1)
		}
		a = append(a, "-drive", fmt.Sprintf("if=none,id=d%d,format=%s,file=%s", i, d.Format, option(d.Path)), "-device", device)
	}
	return append(a, s.Extra...)
}

func nicID(i int) string { return fmt.Sprintf("nic%d", i) }

// option quotes a value within an option of QEMU.
func option(s string) string { return strings.ReplaceAll(s, ",", ",,") }
