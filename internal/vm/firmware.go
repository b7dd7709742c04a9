package vm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
)

// qemuProgram is found in PATH.
const qemuProgram = "qemu-system-x86_64"

// firmware are the files of OVMF: the code, and the variables of a machine that
// was never on.
type firmware struct{ code, vars string }

// Available says whether this machine can run machines with a firmware, or what
// is missing and how to get it.
func Available(f Firmware) error {
	if _, err := exec.LookPath(qemuProgram); err != nil {
		return fmt.Errorf("%s is not installed: apt-get install qemu-system-x86 ipxe-qemu seabios", qemuProgram)
	}
	if f == UEFI {
		_, err := findFirmware()
		return err
	}
	return nil
}

func findFirmware() (firmware, error) {
	const dir = "/usr/share/OVMF/" // of Debian's package ovmf
	for _, suffix := range []string{"_4M.fd", ".fd"} {
		f := firmware{dir + "OVMF_CODE" + suffix, dir + "OVMF_VARS" + suffix}
		if exists(f.code) && exists(f.vars) {
			return f, nil
		}
	}
	return firmware{}, errors.New("the UEFI firmware is not installed: apt-get install ovmf")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// keepVars makes a machine's own file of variables, unless it has it already.
func (f firmware) keepVars(path string) error {
	from, err := os.Open(f.vars)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// CreateDisk makes an empty raw disk of so many bytes, which takes no room until
// it is written to. The file must not exist.
func CreateDisk(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return fmt.Errorf("disk: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}
