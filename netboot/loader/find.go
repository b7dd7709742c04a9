package loader

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Firmware is what a machine starts with before any boot loader.
type Firmware int

// The kinds of firmware.
const (
	BIOS Firmware = iota + 1
	UEFIx64
	UEFIarm64
)

// String is the name for people.
func (f Firmware) String() string {
	switch f {
	case BIOS:
		return "BIOS"
	case UEFIx64:
		return "UEFI x64"
	case UEFIarm64:
		return "UEFI arm64"
	}
	return "unknown firmware"
}

// The names under which boot loaders are found and offered.
const (
	Undionly   = "undionly.kpxe"      // iPXE on the firmware's network driver
	SNPOnly    = "snponly.efi"        // the same for UEFI
	IPXE       = "ipxe.efi"           // iPXE with drivers of its own
	SNPOnlyARM = "snponly-arm64.efi"  //
	Pxelinux   = "pxelinux.0"         // without iPXE, by TFTP
	LPxelinux  = "lpxelinux.0"        // the same with HTTP
	Ldlinux    = "ldlinux.c32"        // its second half
	StubX64    = "linuxx64.efi.stub"  // for unified kernel images; not for booting from
	StubARM64  = "linuxaa64.efi.stub" //
)

// Loader is a boot loader, or a part of one.
type Loader struct {
	Name     string // in the Tree and in DHCP; one of the constants
	Firmware Firmware
	Package  string // of Debian
	Path     string // of the file found
}

// Missing is a boot loader that is not installed, or is damaged.
type Missing struct {
	Loader
	Err error
}

// Error says what to install.
func (m Missing) Error() string {
	if errors.Is(m.Err, fs.ErrNotExist) {
		return fmt.Sprintf("the boot loader %s (%s) is not installed: apt install %s", m.Name, m.Firmware, m.Package)
	}
	return fmt.Sprintf("the boot loader %s (%s): %v; reinstall the package %s", m.Name, m.Firmware, m.Err, m.Package)
}

// Unwrap is the cause.
func (m Missing) Unwrap() error { return m.Err }

// known lists the boot loaders with the places where Debian 12 and 13 have them.
func known() []struct {
	Loader
	paths []string
} {
	return []struct {
		Loader
		paths []string
	}{
		{Loader{Undionly, BIOS, "ipxe", ""}, []string{"usr/lib/ipxe/undionly.kpxe"}},
		{Loader{SNPOnly, UEFIx64, "ipxe", ""}, []string{"usr/lib/ipxe/snponly.efi"}},
		{Loader{IPXE, UEFIx64, "ipxe", ""}, []string{"usr/lib/ipxe/ipxe.efi", "boot/ipxe.efi"}},
		{Loader{SNPOnlyARM, UEFIarm64, "ipxe", ""}, []string{"usr/lib/ipxe/snponly-arm64.efi", "usr/lib/ipxe/ipxe-arm64.efi", "usr/lib/ipxe/arm64-efi/snponly.efi"}},
		{Loader{Pxelinux, BIOS, "pxelinux", ""}, []string{"usr/lib/PXELINUX/pxelinux.0"}},
		{Loader{LPxelinux, BIOS, "pxelinux", ""}, []string{"usr/lib/PXELINUX/lpxelinux.0"}},
		{Loader{Ldlinux, BIOS, "syslinux-common", ""}, []string{"usr/lib/syslinux/modules/bios/ldlinux.c32"}},
		{Loader{StubX64, UEFIx64, "systemd-boot-efi", ""}, []string{"usr/lib/systemd/boot/efi/linuxx64.efi.stub"}},
		{Loader{StubARM64, UEFIarm64, "systemd-boot-efi:arm64", ""}, []string{"usr/lib/systemd/boot/efi/linuxaa64.efi.stub"}},
	}
}

// Find looks for the boot loaders below root ("/" for this machine) and says
// which there are and which not. None of them is needed by all machines: what
// is missing matters only to machines of that firmware.
func Find(root string) ([]Loader, []Missing) {
	var found []Loader
	var missing []Missing
	for _, k := range known() {
		l, err := k.Loader, fs.ErrNotExist
		for _, p := range k.paths {
			path := filepath.Join(root, p)
			if err = usable(path, l.Firmware); err == nil {
				l.Path = path
				break
			}
			if !errors.Is(err, fs.ErrNotExist) {
				break // damaged: say so
			}
		}
		if err != nil {
			missing = append(missing, Missing{l, err})
			continue
		}
		found = append(found, l)
	}
	return found, missing
}

// Entry reads the boot loader for a Tree.
func (l Loader) Entry() (Entry, error) { return File(l.Path, LoaderCheck(l.Firmware)) }

func usable(path string, f Firmware) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	return LoaderCheck(f)(file, info.Size())
}

// LoaderCheck checks a boot loader for a firmware: EFI programs by their
// headers and sections, those of the BIOS, which have no header, by size.
func LoaderCheck(f Firmware) Check {
	return func(r io.ReaderAt, size int64) error {
		switch f {
		case UEFIx64, UEFIarm64:
			return checkEFI(r, size, f)
		}
		// The smallest part of PXELINUX has 26 KB. Loaders must fit below 640 KB.
		if size < 16<<10 || size > 640<<10 {
			return fmt.Errorf("%d bytes are no boot loader for a BIOS", size)
		}
		return nil
	}
}
