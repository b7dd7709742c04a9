package ntp

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Mode is what the configuration says about the clock.
type Mode string

// The modes.
const (
	ModeAuto    Mode = "auto"    // discipline the clock of a whole machine that has no other daemon for it
	ModeOn      Mode = "on"      // discipline it
	ModeObserve Mode = "observe" // never touch it
)

// CheckMode refuses what is no mode.
func CheckMode(m Mode) error {
	if !slices.Contains([]Mode{ModeAuto, ModeOn, ModeObserve}, m) {
		return fmt.Errorf("%q is no mode; the modes are: auto, on, observe", m)
	}
	return nil
}

// initPIDNamespace is the inode of the first PID namespace of a kernel
// (PROC_PID_INIT_INO, include/uapi/linux/nsfs.h and include/linux/proc_ns.h).
const initPIDNamespace = "pid:[4026531836]"

// maxProcesses bounds the search for another daemon.
const maxProcesses = 1 << 20

// MayDiscipline reports whether the clock of this machine is ours to change, and
// if not why. ownsMachine tells that ssi is process 1 of the machine; in a
// container or a lab it is not. A proc is the root of a procfs, os.DirFS("/proc")
// for this machine. Two daemons on one clock fight, so even ModeOn gives way to
// one that runs.
func MayDiscipline(mode Mode, ownsMachine bool, proc fs.FS) (ok bool, why string) {
	if mode == ModeObserve {
		return false, "the configuration says so"
	}
	if mode != ModeOn {
		if !ownsMachine {
			return false, "ssi is not the init of this machine"
		}
		if ns, err := fs.ReadLink(proc, "self/ns/pid"); err == nil && ns != initPIDNamespace {
			return false, "this is a container: the clock is the host's"
		}
	}
	if daemon := otherDaemon(proc); daemon != "" {
		return false, daemon + " disciplines it"
	}
	return true, ""
}

// otherDaemon finds a running program that disciplines clocks, by the name the
// kernel keeps of it (15 bytes, proc_pid_comm(5)).
func otherDaemon(proc fs.FS) string {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return ""
	}
	known := []string{"chronyd", "ntpd", "systemd-timesyn", "openntpd", "timesyncd", "ptp4l", "phc2sys"}
	for _, e := range entries[:min(len(entries), maxProcesses)] {
		if _, err := strconv.ParseUint(e.Name(), 10, 32); err != nil {
			continue
		}
		comm, err := fs.ReadFile(proc, path.Join(e.Name(), "comm"))
		if err != nil {
			continue // it ended
		}
		if name := strings.TrimSpace(string(comm)); slices.Contains(known, name) {
			return fmt.Sprintf("%s (process %s)", name, e.Name())
		}
	}
	return ""
}
