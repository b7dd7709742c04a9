package config

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Limits of the table machine.
const (
	// MinWatchdog and MaxWatchdog bound after how long the watchdog resets the
	// machine: the kernel's drivers have bounds of their own within.
	MinWatchdog = 5 * time.Second
	MaxWatchdog = time.Hour
	// MaxSwap is how many swap areas may be named: the kernel has 29 at least
	// (MAX_SWAPFILES in swap.h), and /etc/fstab has its own.
	MaxSwap = 8
)

// What a press of the machine's power button does.
const (
	ButtonPowerOff = "poweroff"
	ButtonReboot   = "reboot"
	ButtonIgnore   = "ignore"
)

// Machine is the table [machine]: what the start of the machine does where ssi is
// its init. The kernel command line goes before it.
type Machine struct {
	Hostname string   `toml:"hostname"` // "" is /etc/hostname
	Watchdog string   `toml:"watchdog"` // after how long the machine is reset when its init stands still, as "30s"; "" is never
	Swap     []string `toml:"swap"`     // swap areas besides those of /etc/fstab, as its first field

	PowerButton string `toml:"power_button"` // what pressing it does: ButtonPowerOff, ButtonReboot or ButtonIgnore
}

// WatchdogTime is after how long the machine is reset, 0 for never.
func (m Machine) WatchdogTime() time.Duration {
	d, _ := time.ParseDuration(m.Watchdog) // check refused what is none
	return d
}

// check returns the first setting that is wrong.
func (m Machine) check() (key string, err error) {
	if err := optional(m.Hostname, checkHostname); err != nil {
		return "hostname", err
	}
	if err := optional(m.Watchdog, checkWatchdog); err != nil {
		return "watchdog", err
	}
	if len(m.Swap) > MaxSwap {
		return "swap", fmt.Errorf("%d swap areas; at most %d are allowed", len(m.Swap), MaxSwap)
	}
	for i, s := range m.Swap {
		if slices.Contains(m.Swap[:i], s) {
			return fmt.Sprintf("swap[%d]", i), fmt.Errorf("%q is there twice", s)
		}
		if err := checkSwap(s); err != nil {
			return fmt.Sprintf("swap[%d]", i), err
		}
	}
	if err := CheckPowerButton(m.PowerButton); err != nil {
		return "power_button", err
	}
	return "", nil
}

// CheckPowerButton refuses what a power button cannot do.
func CheckPowerButton(s string) error {
	all := []string{ButtonPowerOff, ButtonReboot, ButtonIgnore}
	if !slices.Contains(all, s) {
		return fmt.Errorf("%q is nothing that a power button does; it may be: %s", s, strings.Join(all, ", "))
	}
	return nil
}

// checkHostname takes what hostname(7) allows, as the start of the machine does.
func checkHostname(s string) error {
	if len(s) > 64 || !regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`).MatchString(s) {
		return fmt.Errorf("%q cannot be the name of a machine: letters, digits, - and . are allowed, at most 64", s)
	}
	return nil
}

func checkWatchdog(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf(`%q is no time, such as "30s" or "1m"; leave it empty for no watchdog`, s)
	}
	if d < MinWatchdog || d > MaxWatchdog {
		return fmt.Errorf("%q: it is from %s to %s", s, MinWatchdog, MaxWatchdog)
	}
	return nil
}

// checkSwap takes the first field of fstab(5).
func checkSwap(s string) error {
	tag, value, tagged := strings.Cut(s, "=")
	if tagged && slices.Contains([]string{"UUID", "LABEL", "PARTUUID", "PARTLABEL"}, tag) && value != "" && !strings.ContainsAny(value, "\x00\n") {
		return nil
	}
	if !filepath.IsAbs(s) || filepath.Clean(s) != s {
		return fmt.Errorf(`%q is neither an absolute path nor a tag such as "LABEL=swap" or "UUID=…"`, s)
	}
	return nil
}
