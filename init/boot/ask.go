package boot

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
)

// EndMachine has process 1, this or another init, end the machine in order, by the
// signals of systemd(1) that it obeys; it returns before that has happened. With force the
// kernel ends it at once, and only what was written is written.
func EndMachine(e keeper.Ending, force bool) error {
	// SIGRTMIN is 34 in the C library; see "Signals" in systemd(1).
	signal, command := unix.Signal(34+4), unix.LINUX_REBOOT_CMD_POWER_OFF
	switch e {
	case keeper.Halt:
		signal, command = 34+3, unix.LINUX_REBOOT_CMD_HALT
	case keeper.Reboot:
		signal, command = 34+5, unix.LINUX_REBOOT_CMD_RESTART
	case keeper.Kexec:
		signal, command = 34+6, unix.LINUX_REBOOT_CMD_KEXEC
	}
	var err error
	if force {
		unix.Sync()
		err = unix.Reboot(command)
	} else {
		err = unix.Kill(1, signal)
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: only root may do that: %w", e, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", e, err)
	}
	return nil
}
