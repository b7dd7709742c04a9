package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// LoadKernel has the kernel load the one that takes its place at the next
// keeper.Kexec; see kexec_file_load(2). initrd may be "". The command line of the
// running kernel is used if cmdline is "".
func LoadKernel(kernel, initrd, cmdline string) error {
	if cmdline == "" {
		text, err := readLimited("/proc/cmdline", MaxCommandLine)
		if err != nil {
			return fmt.Errorf("load kernel %s: %w", kernel, err)
		}
		cmdline = strings.TrimSpace(text)
	}
	k, err := os.Open(kernel)
	if err != nil {
		return fmt.Errorf("load kernel: %w", err)
	}
	defer func() { _ = k.Close() }()
	fd, flags := -1, unix.KEXEC_FILE_NO_INITRAMFS
	if initrd != "" {
		i, err := os.Open(initrd)
		if err != nil {
			return fmt.Errorf("load kernel %s: %w", kernel, err)
		}
		defer func() { _ = i.Close() }()
		fd, flags = int(i.Fd()), 0
	}
	err = unix.KexecFileLoad(int(k.Fd()), fd, cmdline, flags)
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("load kernel %s: it is no kernel for this machine: %w", kernel, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EKEYREJECTED):
		return fmt.Errorf("load kernel %s: the running kernel does not allow it (not root, kexec_load_disabled, or a signature is asked for): %w", kernel, err)
	case err != nil:
		return fmt.Errorf("load kernel %s: %w", kernel, err)
	}
	return nil
}

// KernelLoaded reports whether a kernel waits for keeper.Kexec: of LoadKernel, or
// of kexec(8).
func KernelLoaded() bool {
	b, err := os.ReadFile("/sys/kernel/kexec_loaded")
	return err == nil && strings.TrimSpace(string(b)) == "1" || errors.Is(err, fs.ErrPermission)
}
