package pid1

import (
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
)

// What reboot, halt and poweroff of systemd and BusyBox, and Ctrl-Alt-Del, send.
func TestEndingOf(t *testing.T) {
	for _, c := range []struct {
		signal            unix.Signal
		machine, box, sub keeper.Ending // a machine; a PID namespace; not process 1
		name              string
	}{
		{unix.SIGINT, keeper.Reboot, keeper.Reboot, keeper.PowerOff, "SIGINT"},
		{unix.SIGTERM, keeper.Reboot, keeper.PowerOff, keeper.PowerOff, "SIGTERM"},
		{unix.SIGUSR1, keeper.Halt, keeper.Halt, keeper.Halt, "SIGUSR1"},
		{unix.SIGUSR2, keeper.PowerOff, keeper.PowerOff, keeper.PowerOff, "SIGUSR2"},
		{unix.SIGPWR, keeper.PowerOff, keeper.PowerOff, keeper.PowerOff, "SIGPWR"},
		{37, keeper.Halt, keeper.Halt, keeper.Halt, "SIGRTMIN+3"},
		{38, keeper.PowerOff, keeper.PowerOff, keeper.PowerOff, "SIGRTMIN+4"},
		{39, keeper.Reboot, keeper.Reboot, keeper.Reboot, "SIGRTMIN+5"},
		{40, keeper.Kexec, keeper.Kexec, keeper.Kexec, "SIGRTMIN+6"},
	} {
		if m, b, s := endingOf(c.signal, true, true), endingOf(c.signal, true, false), endingOf(c.signal, false, false); m != c.machine || b != c.box || s != c.sub {
			t.Errorf("%s: %v, %v, %v; want %v, %v, %v", c.name, m, b, s, c.machine, c.box, c.sub)
		}
		if got := signalName(c.signal); got != c.name {
			t.Errorf("%q, want %q", got, c.name)
		}
	}
}
