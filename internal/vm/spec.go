package vm

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
)

// Firmware is what a machine runs first.
type Firmware int

// The firmwares.
const (
	BIOS Firmware = iota // SeaBIOS
	UEFI                 // OVMF, from Debian's package ovmf
)

// Boot is where a machine boots from.
type Boot int

// The ways to boot.
const (
	BootKernel  Boot = iota // Spec.Kernel, given to it by QEMU
	BootNetwork             // its NICs in their order, and nothing else
	BootDisk                // its disks in their order, and nothing else
)

// Limits of a Spec.
const (
	MaxNICs   = 8
	MaxDisks  = 8
	MaxCPUs   = 8
	MinMemory = 32        // MiB
	MaxMemory = 64 * 1024 // MiB
)

// Spec describes a machine.
type Spec struct {
	Name   string // a-z, 0-9, '-': at most 24 characters
	Memory int    // MiB; 0 is 256
	CPUs   int    // 0 is 1
	CPU    string // QEMU's name of the model; "" is qemu64, the oldest there is

	Firmware Firmware
	Boot     Boot
	Kernel   string // for BootKernel: bzImage
	Initrd   string // may be ""
	Append   string // the kernel's command line
	// NoROM takes iPXE off the NICs: BIOS then cannot boot from the network, and
	// UEFI does it by itself.
	NoROM bool
	// Reboot lets a reset, by the machine or by Reset, start it anew. Otherwise it
	// switches it off: so a machine that crashes and reboots again and again is
	// seen as off.
	Reboot bool

	NICs  []NIC
	Disks []Disk
	Extra []string // more arguments for QEMU
}

// NIC is a network interface of a machine.
type NIC struct {
	Segment string
	MAC     net.HardwareAddr // nil: one that no other machine of the network has
	Model   string           // QEMU's name of the device; "" is virtio-net-pci
}

// Disk is a disk of a machine: a file that stays when the machine is off.
type Disk struct {
	Path   string
	Format string // "raw" or "qcow2"; "" is raw
	Model  string // QEMU's name of the device; "" is virtio-blk-pci
}

// PortName is the name of the port of a machine's NIC, counted from 0, on its
// segment.
func PortName(machine string, nic int) string { return fmt.Sprintf("%s/%d", machine, nic) }

// check fills in what is left out and says what is wrong.
func (s Spec) check() (Spec, error) {
	s.NICs, s.Disks = append([]NIC(nil), s.NICs...), append([]Disk(nil), s.Disks...)
	for _, d := range []struct {
		value *int
		is    int
	}{{&s.Memory, 256}, {&s.CPUs, 1}} {
		if *d.value == 0 {
			*d.value = d.is
		}
	}
	orElse(&s.CPU, "qemu64")
	var errs []error
	say := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	say(validName(s.Name), "its name must be 1 to %d of a-z, 0-9 and '-'", maxName)
	say(s.Memory >= MinMemory && s.Memory <= MaxMemory, "memory %d MiB is not between %d and %d", s.Memory, MinMemory, MaxMemory)
	say(s.CPUs >= 1 && s.CPUs <= MaxCPUs, "%d CPUs are not between 1 and %d", s.CPUs, MaxCPUs)
	say(validModel(s.CPU), "%q is no CPU model", s.CPU)
	say(s.Firmware == BIOS || s.Firmware == UEFI, "unknown firmware %d", s.Firmware)
	switch s.Boot {
	case BootKernel:
		say(s.Kernel != "", "no kernel to boot")
	case BootNetwork:
		say(len(s.NICs) > 0, "no NIC to boot from")
		say(!s.NoROM || s.Firmware == UEFI, "BIOS cannot boot from the network without iPXE on the NIC")
	case BootDisk:
		say(len(s.Disks) > 0, "no disk to boot from")
	default:
		say(false, "unknown way to boot %d", s.Boot)
	}
	say(s.Boot == BootKernel || s.Kernel+s.Initrd+s.Append == "", "kernel, initrd and command line are for BootKernel only")
	say(len(s.NICs) <= MaxNICs, "%d NICs, more than %d", len(s.NICs), MaxNICs)
	say(len(s.Disks) <= MaxDisks, "%d disks, more than %d", len(s.Disks), MaxDisks)
	for i := range s.NICs {
		n := &s.NICs[i]
		orElse(&n.Model, "virtio-net-pci")
		say(validName(n.Segment), "NIC %d: %q is no name of a segment", i, n.Segment)
		say(validModel(n.Model), "NIC %d: %q is no model", i, n.Model)
		say(n.MAC == nil || len(n.MAC) == hardwareLen && n.MAC[0]&groupBit == 0, "NIC %d: %v is no address of an interface", i, n.MAC)
	}
	for i := range s.Disks {
		d := &s.Disks[i]
		orElse(&d.Model, "virtio-blk-pci")
		orElse(&d.Format, "raw")
		say(d.Path != "", "disk %d has no file", i)
		say(d.Format == "raw" || d.Format == "qcow2", "disk %d: format %q is neither raw nor qcow2", i, d.Format)
		say(validModel(d.Model), "disk %d: %q is no model", i, d.Model)
	}
	if err := errors.Join(errs...); err != nil {
		return s, fmt.Errorf("machine %q: %s", s.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return s, nil
}

func orElse(s *string, other string) {
	if *s == "" {
		*s = other
	}
}

const maxName = 24

func validName(s string) bool {
	ok, err := regexp.MatchString(`^[a-z0-9][a-z0-9-]*$`, s)
	return ok && err == nil && len(s) <= maxName
}

// validModel allows QEMU's names of devices and CPUs and nothing that could be
// more options.
func validModel(s string) bool {
	ok, err := regexp.MatchString(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`, s)
	return ok && err == nil
}
