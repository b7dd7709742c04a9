package procfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
)

// machine2 starts what is to be looked at and prints the PIDs.
func machine2() int {
	if err := newMachine(2); err != nil {
		return fatal("machine 2", err)
	}
	dir := os.Getenv(dirEnv)
	file, err := os.Create(filepath.Join(dir, "deleted"))
	if err != nil {
		return fatal("machine 2", err)
	}
	_ = os.Remove(file.Name())
	pids := map[string]int{}
	start := func(name string, uid uint32, cmd *exec.Cmd) {
		cmd.Dir = "/tmp"
		cmd.Stderr = nil
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if e := cmd.Start(); e != nil {
			err = e
			return
		}
		pids[name] = cmd.Process.Pid
		go func() { _ = cmd.Wait() }()
	}
	root := exec.Command("sleep", "100001")
	root.Env = []string{"SECRET=of-root"}
	root.ExtraFiles = []*os.File{file}
	start("root", 0, root)
	user := exec.Command("sleep", "100002")
	user.Env = []string{"SECRET=of-user"}
	user.ExtraFiles = []*os.File{file}
	start("user", 1234, user)
	start("threads", 0, self("idle"))
	start("long", 0, exec.Command("sh", "-c", "sleep 100004; true", strings.Repeat("x", 3*maxCmdline)))
	n, _ := strconv.Atoi(os.Getenv(countEnv))
	for i := range n {
		start("idle"+strconv.Itoa(i), 0, exec.Command("sleep", "100003"))
	}
	if err != nil {
		return fatal("machine 2", err)
	}
	out := json.NewEncoder(os.NewFile(3, "answers"))
	if err := out.Encode(pids); err != nil {
		return fatal("machine 2", err)
	}
	for in := json.NewDecoder(os.NewFile(4, "commands")); ; {
		var args []string
		if err := in.Decode(&args); err != nil {
			return 0
		}
		var a remoteAnswer
		switch args[0] {
		case "start":
			cmd := exec.Command(args[1], args[2:]...)
			if err := cmd.Start(); err != nil {
				return fatal("machine 2", err)
			}
			go func() { _ = cmd.Wait() }()
			a.PID = cmd.Process.Pid
		case "place":
			pid, _ := strconv.Atoi(args[1])
			cmd, err := startAs(2, pid, func() *exec.Cmd { return exec.Command(args[2], args[3:]...) })
			if err != nil {
				return fatal("machine 2", err)
			}
			go func() { _ = cmd.Wait() }()
			a.PID = pid
		default:
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = toolEnv()
			begun := time.Now()
			b, err := cmd.CombinedOutput()
			a.Out, a.Took = b, time.Since(begun)
			if err != nil {
				a.Err = err.Error()
			}
		}
		if err := out.Encode(a); err != nil {
			return fatal("machine 2", err)
		}
	}
}

// remoteAnswer is what became of a command on machine 2.
type remoteAnswer struct {
	Out  []byte
	Err  string
	PID  int
	Took time.Duration
}

func toolEnv() []string {
	return append(os.Environ(), "LC_ALL=C", "COLUMNS=200", "LINES=200", "TERM=xterm")
}

// spawnRole sets up the view and becomes the tests in it.
func spawnRole(log *slog.Logger) int {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fatal("unshare", err)
	}
	switch os.Getenv(spawnEnv) {
	case "half": // an earlier one died in the middle
		fd, err := strconv.Atoi(os.Getenv(keeper.FDEnv))
		if err != nil {
			return fatal("keeper", err)
		}
		half := self("half")
		half.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "keeper")}
		half.Env = append(half.Env, keeper.FDEnv+"=3")
		if err := half.Run(); err != nil {
			return fatal("half a spawn role", err)
		}
	case "fail":
		return spawnFails(log)
	}
	keep, err := keeper.Open(log, nil)
	if err != nil {
		return fatal("keeper", err)
	}
	if err := Setup(log, keep); err != nil {
		return fatal("setup", err)
	}
	// Once more, as a spawn role does that was started anew.
	one, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return fatal("view", err)
	}
	if err := Setup(log, keep); err != nil {
		return fatal("setup again", err)
	}
	if two, err := os.Readlink("/proc/thread-self/ns/mnt"); two != one {
		return fatal("setup again", fmt.Errorf("another view: %s, %s, %v", one, two, err))
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fatal("exe", err)
	}
	return fatal("exec", unix.Exec(exe, os.Args, append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, modeEnv+"=") }), modeEnv+"=view")))
}

// localRole runs its arguments in the local view.
func localRole() int {
	runtime.LockOSThread()
	if err := Local(); err != nil {
		return fatal("local view", err)
	}
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return fatal("local view", err)
	}
	return fatal("exec", unix.Exec(path, os.Args[1:], os.Environ()))
}

// halfRole mounts the file system and ends before the view is complete.
func halfRole(log *slog.Logger) int {
	runtime.LockOSThread()
	keep, err := keeper.Open(log, nil)
	if err != nil {
		return fatal("keeper", err)
	}
	var mount *os.File
	for end := time.Now().Add(setupWait); ; time.Sleep(setupPoll) {
		if mount, err = keep.Take(keptMount); err == nil || time.Now().After(end) {
			break
		}
	}
	if err == nil {
		err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
	}
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
	}
	if err == nil {
		err = unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err != nil {
		return fatal("half a spawn role", err)
	}
	return 0
}

// spawnFails is a spawn role without a role mount: it must go on where it is.
func spawnFails(log *slog.Logger) int {
	keep, err := keeper.Open(log, nil)
	if err != nil {
		return fatal("keeper", err)
	}
	before, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return fatal("namespace", err)
	}
	if err := setup(log, keep, 300*time.Millisecond); err == nil {
		return fatal("setup without a role mount", errors.New("no error"))
	}
	after, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil || after != before {
		return fatal("after a setup that failed", fmt.Errorf("%s, %s, %w", before, after, err))
	}
	return 0
}
