package feature

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// pidMax is the pid_max that a node needs: PID_MAX_LIMIT of 64-bit kernels in
// include/linux/threads.h, so that every node has its window.
const pidMax = 4194304

func lockThread() { runtime.LockOSThread() }

// kernel tries what a node needs of the kernel.
func kernel(Options) []Result {
	r := func(name string) Result { return Result{Area: "kernel", Name: name, Required: true} }
	results := []Result{release()}
	for _, ns := range namespaces() {
		results = append(results, outcome(r(ns.name+" namespace"), "works", inThread(func() error { return unix.Unshare(ns.flag) }),
			"use a kernel with "+ns.config))
	}
	return append(results,
		outcome(r("cgroup2"), "can be mounted", filesystem("cgroup2"), "use a kernel with CONFIG_CGROUPS"),
		outcome(r("fuse"), "device and file system work", fuse(), "load the module: modprobe fuse"),
		outcome(r("pidfd"), "works", pidfd(), "use a kernel with pidfd_open (5.3 or newer)"),
		outcome(r("clone3 set_tid"), "known", sys.ProbeSetTID(), "use a kernel with clone3 and set_tid (5.5 or newer)"),
		outcome(r("seccomp notify"), "known, with WAIT_KILLABLE_RECV", sys.ProbeSeccompNotify(), "use a kernel with CONFIG_SECCOMP_FILTER, 5.19 or newer"),
		outcome(r("userfaultfd"), "works", sys.ProbeUserfaultfd(), "use a kernel with CONFIG_USERFAULTFD"),
		outcome(r("ns_last_pid"), "can be written", writable("/proc/sys/kernel/ns_last_pid"), "use a kernel with CONFIG_CHECKPOINT_RESTORE"),
		pidRange(r("pid_max")),
		outcome(r("TCP_USER_TIMEOUT"), "works", userTimeout(), "use a kernel with IPv4"),
		outcome(r("random numbers"), "ready", entropy(), "wait until the kernel has gathered entropy, or give the machine a hardware generator"),
	)
}

func release() Result {
	r := Result{Area: "kernel", Name: "release", Level: OK}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		r.Level, r.Text = Warn, err.Error()
		return r
	}
	r.Text = unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Machine[:])
	return r
}

type namespace struct {
	name   string
	flag   int
	config string
}

func namespaces() []namespace {
	return []namespace{
		{"pid", unix.CLONE_NEWPID, "CONFIG_PID_NS"},
		{"mount", unix.CLONE_NEWNS, "CONFIG_NAMESPACES"},
		{"net", unix.CLONE_NEWNET, "CONFIG_NET_NS"},
		{"ipc", unix.CLONE_NEWIPC, "CONFIG_IPC_NS"},
		{"uts", unix.CLONE_NEWUTS, "CONFIG_UTS_NS"},
		{"cgroup", unix.CLONE_NEWCGROUP, "CONFIG_CGROUPS"},
	}
}

// filesystem tries to open a file system type, see fsopen(2); the kernel loads
// its module by itself.
func filesystem(name string) error {
	fd, err := unix.Fsopen(name, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("file system %s: %w", name, err)
	}
	return unix.Close(fd)
}

func device(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func fuse() error {
	if err := filesystem("fuse"); err != nil {
		return err
	}
	return device("/dev/fuse")
}

func pidfd() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	return unix.Close(fd)
}

// writable reports whether a file is there and may be written.
func writable(path string) error {
	if err := unix.Access(path, unix.W_OK); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func pidRange(r Result) Result {
	const path = "/proc/sys/kernel/pid_max"
	b, err := os.ReadFile(path)
	if err != nil {
		return outcome(r, "", err, "mount /proc")
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil:
		return outcome(r, "", err, "")
	case n == pidMax:
		r.Level, r.Text = OK, strconv.Itoa(n)
	case writable(path) == nil:
		r.Level, r.Text = OK, fmt.Sprintf("%d; the node raises it to %d", n, pidMax)
	default:
		r.Level, r.Text, r.Todo = Missing, fmt.Sprintf("%d, a node needs %d", n, pidMax), fmt.Sprintf("sysctl kernel.pid_max=%d", pidMax)
		if os.Geteuid() != 0 {
			r.Level, r.Todo = Warn, "run `ssi doctor` as root"
		}
	}
	return r
}

func userTimeout() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1000)
	return errors.Join(err, unix.Close(fd))
}

func entropy() error {
	var b [16]byte
	if _, err := unix.Getrandom(b[:], unix.GRND_NONBLOCK); err != nil {
		return fmt.Errorf("getrandom: %w", err)
	}
	return nil
}
