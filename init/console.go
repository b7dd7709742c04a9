package pid1

import (
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"ssi/init/boot"
)

// useConsole makes the console the standard streams where the kernel found none,
// because there was no /dev yet, and the kernel's log the log of this process and
// of the roles: it is bounded, and never waits for a terminal.
func (d *initd) useConsole() error {
	if d.o.Log == nil {
		if log, err := boot.NewKmsg("init", slog.LevelInfo); err == nil {
			d.log = log
			if err := os.Setenv(boot.KmsgEnv, "1"); err != nil {
				return err
			}
			// Else only 10 lines in 5 seconds are taken; see the sysctl's documentation.
			_ = os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on"), 0)
		}
	}
	if _, err := unix.IoctlGetTermios(1, unix.TCGETS); err == nil {
		return nil
	}
	fd, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	for std := range 3 {
		if err := unix.Dup3(fd, std, 0); err != nil {
			return fmt.Errorf("console: %w", err)
		}
	}
	return unix.Close(fd)
}
