package pid1

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
)

// Signals by which systemctl(1), halt(8) and the like address process 1:
// SIGRTMIN+3 to +6 of systemd(1); SIGRTMIN is 34 in the C library.
const (
	sigHalt     = unix.Signal(34 + 3)
	sigPowerOff = unix.Signal(34 + 4)
	sigReboot   = unix.Signal(34 + 5)
	sigKexec    = unix.Signal(34 + 6)
)

// endSignals are those that end the machine.
func endSignals() []os.Signal {
	return []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGPWR, unix.SIGUSR1, unix.SIGUSR2, sigHalt, sigPowerOff, sigReboot, sigKexec}
}

// endingOf is what a signal asks for. On a machine SIGTERM, SIGUSR1 and SIGUSR2 are
// the reboot, halt and poweroff of BusyBox (init/halt.c); elsewhere SIGTERM is what a
// supervisor ends this process by.
func endingOf(s os.Signal, isInit, machine bool) keeper.Ending {
	switch s {
	case sigHalt, unix.SIGUSR1:
		return keeper.Halt
	case sigReboot:
		return keeper.Reboot
	case sigKexec:
		return keeper.Kexec
	case unix.SIGINT: // Ctrl-Alt-Del
		if isInit {
			return keeper.Reboot
		}
	case unix.SIGTERM:
		if machine {
			return keeper.Reboot
		}
	}
	return keeper.PowerOff
}

// signalName is the name of a signal, also of one that only the C library names.
func signalName(s os.Signal) string {
	n, ok := s.(unix.Signal)
	if name := unix.SignalName(n); ok && name != "" {
		return name
	}
	return fmt.Sprintf("SIGRTMIN+%d", int(n)-34)
}
