package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
)

// TestView runs the tests that follow on two machines, in the view of one.
func TestView(t *testing.T) {
	if os.Getenv(modeEnv) == "view" {
		t.Skip("we are in it")
	}
	runMachine(t, []string{countEnv + "=20"}, "-test.run=^TestView", "-test.v", "-test.timeout=150s")
}

// A spawn role that died while it made the view leaves nothing that hinders the next.
func TestViewAfterHalf(t *testing.T) {
	if os.Getenv(modeEnv) == "view" {
		t.Skip("we are in it")
	}
	runMachine(t, []string{countEnv + "=0", spawnEnv + "=half"}, "-test.run=^TestViewList$", "-test.v", "-test.timeout=60s")
}

// Without a role mount Setup says so, in time.
func TestSetupFails(t *testing.T) {
	runMachine(t, []string{countEnv + "=0", spawnEnv + "=fail"})
}

// run is what a command prints, and how it ends.
func run(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = toolEnv()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := run(t, name, args...)
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// remotePIDs is the PIDs of the processes on machine 2 by name.
func remotePIDs(t testing.TB) map[string]int {
	t.Helper()
	inView(t)
	return ask(t, "").PIDs
}

func file(pid int, name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }

// The stock tools show of remote processes what they show there.
func TestViewSameAsThere(t *testing.T) {
	pids := remotePIDs(t)
	for _, name := range []string{"root", "user", "threads"} {
		pid := strconv.Itoa(pids[name])
		for _, args := range [][]string{
			{"ps", "-ww", "-p", pid, "-o", "pid,ppid,pgid,sid,user,euser,group,ni,pri,stat,tty,nlwp,comm,args"},
			{"ps", "-ww", "-p", pid, "-o", "pid,vsz,rss,lstart,cls,rtprio,psr,sig,caught,etime,time"},
			{"ps", "-ww", "-L", "-p", pid, "-o", "pid,nlwp,comm"},
			{"ps", "eww", "-p", pid},
			{"ps", "-p", pid, "-o", "pid,cgroup,oom,wchan"},
			{"pstree", "-pa", pid},
			{"pwdx", pid},
			{"readlink", file(pids[name], "exe"), file(pids[name], "cwd"), file(pids[name], "root"), file(pids[name], "fd/0"), file(pids[name], "fd/3"), file(pids[name], "ns/net")},
			{"ls", file(pids[name], "fd"), file(pids[name], "fdinfo"), file(pids[name], "ns"), file(pids[name], "task")},
			{"cat", file(pids[name], "status"), file(pids[name], "cmdline"), file(pids[name], "statm"), file(pids[name], "comm")},
			{"cat", file(pids[name], "environ"), file(pids[name], "maps"), file(pids[name], "limits"), file(pids[name], "cgroup"), file(pids[name], "fdinfo/0"), file(pids[name], "oom_score_adj"), file(pids[name], "auxv")},
			{"cat", "/proc/" + pid + "/task/" + pid + "/comm", "/proc/" + pid + "/task/" + pid + "/statm"},
			{"stat", "-L", "-c", "%U %G %a", "/proc/" + pid, file(pids[name], "stat"), file(pids[name], "environ"), file(pids[name], "fd")},
			{"pgrep", "-f", "sleep 10000[0-2]"},
			{"prlimit", "-p", "0"},
		} {
			changes := regexp.MustCompile(`(?m)^(voluntary_ctxt_switches|nonvoluntary_ctxt_switches|VmRSS|RssAnon|RssFile|Kthread).*\n|(\s\d\d:\d\d(:\d\d)?\b)`)
			var here, there string
			within(t, 3*time.Second, func() error { // what counts time may differ for a moment
				var herr, terr error
				here, herr = run(t, args[0], args[1:]...)
				there, terr = remotely(t, args...)
				if args[0] == "pgrep" { // here there are others, too
					here = onlyFrom(here, 2)
				}
				if fmt.Sprint(herr) != fmt.Sprint(terr) {
					return fmt.Errorf("%q of %s ends with %v, there with %v\n%s%s", args, name, herr, terr, here, there)
				}
				if a, b := changes.ReplaceAllString(here, ""), changes.ReplaceAllString(there, ""); a != b {
					return fmt.Errorf("%q of %s shows\n%snot\n%s", args, name, a, b)
				}
				return nil
			})
			if here == "" {
				t.Errorf("%q shows nothing", args)
			}
		}
	}
}

// onlyFrom is the lines that begin with a PID of node n.
func onlyFrom(text string, n id.Node) string {
	var keep strings.Builder
	for line := range strings.Lines(text) {
		if pid, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(strings.TrimSpace(line), " ", 2)[0])); err == nil && id.PID(pid).Home() == n {
			keep.WriteString(line)
		}
	}
	return keep.String()
}

// The stock tools show processes of both nodes, and nothing fails.
func TestViewTools(t *testing.T) {
	pids := remotePIDs(t)
	local := strconv.Itoa(os.Getpid())
	remote := strconv.Itoa(pids["root"])
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"ps", "aux"}, []string{local, remote, "sleep 100001"}},
		{[]string{"ps", "-ef", "--forest"}, []string{local, remote, "sleep 100001"}},
		{[]string{"ps", "-eLf"}, []string{local, remote}},
		{[]string{"ps", "-u", "1234"}, []string{strconv.Itoa(pids["user"])}},
		{[]string{"top", "-b", "-n", "1"}, []string{remote}},
		{[]string{"top", "-b", "-H", "-n", "1"}, []string{remote}},
		{[]string{"pgrep", "-f", "sleep 100001"}, []string{remote}},
		{[]string{"pidof", "sleep"}, []string{remote}},
		{[]string{"pstree", "-p"}, []string{remote, local}},
		{[]string{"lsof", "-p", remote}, []string{"cwd", "/tmp", "txt", "/usr/bin/sleep"}},
		{[]string{"fuser", "-v", "/usr/bin/sleep"}, []string{remote}},
		{[]string{"su", "-s", "/bin/sh", "nobody", "-c", "cat /proc/self/comm /proc/" + remote + "/comm"}, []string{"cat\nsleep\n"}},
		{[]string{"sudo", "-n", "-u", "nobody", "cat", "/proc/self/comm", "/proc/" + remote + "/comm"}, []string{"cat\nsleep\n"}},
		{[]string{"free"}, []string{"Mem:"}},
		{[]string{"uptime"}, []string{"load average"}},
		{[]string{"vmstat"}, []string{"procs"}},
		{[]string{"sysctl", "kernel.pid_max"}, []string{"4194304"}},
		{[]string{"bash", "-c", "cat <(echo through) /proc/self/comm"}, []string{"through", "cat"}},
		{[]string{"bash", "-c", "exec 3>/tmp/gone.$$; rm /tmp/gone.$$; echo kept >&3; cat /proc/$$/fd/3"}, []string{"kept"}},
		{[]string{"sh", "-c", "readlink /proc/self /proc/thread-self; ls /proc/self/fd/ /proc/thread-self/"}, []string{"/task/", "comm"}},
		{[]string{"cat", "/proc/mounts", "/proc/net/dev", "/proc/filesystems", "/proc/cpuinfo", "/proc/version"}, []string{"/proc/.local", "lo:", "nodev"}},
		{[]string{"cat", "/proc/cluster/nodes", "/proc/cluster/self"}, []string{"1 up\n2 up\n", "1\n"}},
		{[]string{"cat", "/proc/" + remote + "/where"}, []string{"2\n"}},
		{[]string{"ls", "/cluster", "/cluster/node1/proc/", "/cluster/node2/proc/"}, []string{"node1\n", "node2\n", remote}},
		{[]string{"cat", "/cluster/node2/proc/loadavg", "/cluster/node2/proc/" + remote + "/comm", "/cluster/node2/proc/" + remote + "/fdinfo/0"}, []string{"sleep", "flags:"}},
		{[]string{"python3", "-c", "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[-1] >= " + remote + ")"}, []string{"True"}},
		{[]string{"strace", "-o", "/dev/null", "true"}, nil},
		{[]string{"unshare", "-Upfr", "--mount-proc", "ps", "ax"}, []string{"ps ax"}},
		{[]string{"git", "--version"}, []string{"git version"}},
		{[]string{"find", "/proc/" + remote, "-maxdepth", "1", "-name", "stat*"}, []string{"/stat\n", "/status\n", "/statm\n"}},
	} {
		t.Run(strings.Join(c.args[:min(2, len(c.args))], " "), func(t *testing.T) {
			out := output(t, c.args[0], c.args[1:]...)
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q does not show %q:\n%.4000s", c.args, want, out)
				}
			}
		})
	}
	// A process of another node cannot be traced from here: the message names it.
	if out, err := run(t, "strace", "-p", remote); err == nil || !strings.Contains(out, "No such process") {
		t.Errorf("strace -p: %v, %s", err, out)
	}
}

// The list is that of one machine: in order, every process once.
func TestViewList(t *testing.T) {
	pids := remotePIDs(t)
	list, err := os.ReadDir("/proc") // sorted by name
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, e := range list {
		if names[e.Name()] {
			t.Errorf("%s is listed twice", e.Name())
		}
		names[e.Name()] = true
	}
	for _, want := range []string{"self", "thread-self", "cluster", "stat", "meminfo", "uptime", "sys", "net", "mounts", strconv.Itoa(pids["user"]), strconv.Itoa(os.Getpid())} {
		if !names[want] {
			t.Errorf("%s is not listed", want)
		}
	}
	plain, err := os.ReadDir("/proc/.local")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range plain {
		if _, pid := pidOf(e.Name()); pid {
			continue
		}
		a, aerr := os.Stat("/proc/" + e.Name())
		b, berr := os.Stat("/proc/.local/" + e.Name())
		if fmt.Sprint(aerr == nil) != fmt.Sprint(berr == nil) || aerr == nil && a.IsDir() != b.IsDir() {
			t.Errorf("%s: %v, %v; plain: %v, %v", e.Name(), a, aerr, b, berr)
		}
	}
	for _, bad := range []string{"0", "01", "+1", "-1", "65535x", "4194304", "99999999999999999999", "131072", strings.Repeat("9", 300), "nothing"} {
		if _, err := os.Stat("/proc/" + bad); err == nil {
			t.Errorf("/proc/%s exists", bad)
		}
	}
	for _, bad := range []string{"nothing", "fd/99", "fd/x", "fd/00", "task/1", "task/" + strconv.Itoa(pids["user"]) + "/fd", "ns/x"} {
		if _, err := os.Lstat(file(pids["user"], bad)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func killThere(t testing.TB, pid int) {
	t.Helper()
	if out, err := remotely(t, "kill", "-9", strconv.Itoa(pid)); err != nil {
		t.Fatalf("kill: %v, %s", err, out)
	}
}

// A process that starts is listed at once, and one that ends is not any more.
func TestViewFresh(t *testing.T) {
	remotePIDs(t)
	for i := range 20 {
		seconds := strconv.Itoa(200000 + i)
		pid := ask(t, "remote", "start", "sleep", seconds).Remote.PID
		if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err != nil {
			t.Errorf("a process that has just started: %v", err)
		}
		within(t, 5*time.Second, func() error { // a listing does not wait long for a busy node
			if out, err := run(t, "pgrep", "-f", "sleep "+seconds); err != nil || strings.TrimSpace(out) != strconv.Itoa(pid) {
				return fmt.Errorf("pgrep shows %q, not %d: %v", out, pid, err)
			}
			return nil
		})
		dir, err := os.Open("/proc/" + strconv.Itoa(pid))
		if err != nil {
			t.Fatal(err)
		}
		killThere(t, pid)
		within(t, 5*time.Second, func() error {
			list, err := os.ReadDir("/proc")
			if err != nil {
				return err
			}
			if slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == strconv.Itoa(pid) }) {
				return errors.New("a dead process is listed")
			}
			return nil
		})
		within(t, 5*time.Second, func() error {
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil {
				return errors.New("a dead process has a stat")
			}
			return nil
		})
		if b := make([]byte, 100); true { // who has its directory open sees it end, as in proc(5)
			fd, err := unix.Openat(int(dir.Fd()), "stat", unix.O_RDONLY, 0)
			if err == nil {
				_, err = unix.Read(fd, b)
				_ = unix.Close(fd)
			}
			if err == nil && !bytes.Contains(b, []byte("sleep")) {
				t.Errorf("read %q", b)
			}
		}
		_ = dir.Close()
	}
}

// Who reads a file of all processes, as ps does, asks for many at once, and what did not change only once.
func TestViewAhead(t *testing.T) {
	pids := remotePIDs(t)
	var names []string
	for i := 10; i < 20; i++ {
		names = append(names, file(pids["idle"+strconv.Itoa(i)], "environ"))
	}
	slices.Sort(names)
	for round, limit := range []int{8, 2} { // 2 with luck, then 0
		before := ask(t, "").Fetches
		for _, who := range []uint32{0, 1234} {
			out, err := as(who, nil, "cat", names...)
			if (err == nil) != (who == 0) || (strings.Count(out, countEnv+"=") == len(names)) != (who == 0) || who != 0 && strings.Count(out, "denied") != len(names) {
				t.Errorf("user %d: %v, %.300q", who, err, out)
			}
		}
		if n := ask(t, "").Fetches - before; n > 2*limit {
			t.Errorf("round %d: %d questions for %d files of two users", round, n, len(names))
		}
	}
}

// A change of a process shows in what is cached.
func TestViewChange(t *testing.T) {
	pids := remotePIDs(t)
	pid := strconv.Itoa(pids["idle0"])
	for _, nice := range []string{"5", "10", "15"} {
		if out, err := remotely(t, "renice", "-n", nice, "-p", pid); err != nil {
			t.Fatalf("renice: %v, %s", err, out)
		}
		within(t, 5*time.Second, func() error {
			if out := strings.TrimSpace(output(t, "ps", "-o", "ni=", "-p", pid)); out != nice {
				return fmt.Errorf("nice value %s, want %s", out, nice)
			}
			return nil
		})
	}
}

// localview sees the processes of this node only.
func TestViewLocal(t *testing.T) {
	pids := remotePIDs(t)
	cmd := self("local", "sh", "-c", "ps -e -o pid=; test -e /proc/self/stat && test ! -e /proc/"+strconv.Itoa(pids["root"])+" && test ! -e /proc/cluster && sysctl kernel.pid_max && mount --bind /tmp /mnt && umount /mnt")
	cmd.Stdout, cmd.Stderr = nil, nil
	out, err := cmd.CombinedOutput()
	if err != nil || onlyFrom(string(out), 2) != "" || !strings.Contains(string(out), "kernel.pid_max") || onlyFrom(string(out), 1) == "" {
		t.Errorf("%v\n%s", err, out)
	}
	if out := output(t, "ps", "-e", "-o", "pid="); onlyFrom(out, 2) == "" {
		t.Error("the view outside of it changed")
	}
}

// Mounts that the node makes later appear in the view, and not the other way around.
func TestViewMounts(t *testing.T) {
	remotePIDs(t)
	dir := filepath.Join(t.TempDir(), "a")
	other := filepath.Join(t.TempDir(), "b")
	for _, d := range []string{dir, other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	outside := func(args ...string) { output(t, "nsenter", append([]string{"-t", "1", "-m", "--"}, args...)...) }
	outside("mount", "-t", "tmpfs", "later", dir)
	defer outside("umount", dir)
	outside("touch", dir+"/file")
	if _, err := os.Stat(dir + "/file"); err != nil {
		t.Errorf("a mount made later is not in the view: %v", err)
	}
	output(t, "mount", "-t", "tmpfs", "inside", other)
	defer output(t, "umount", other)
	output(t, "touch", other+"/file")
	outside("test", "!", "-e", other+"/file")
	outside("sh", "-c", "test -d /proc/1 && test ! -e /proc/.local && test ! -e /proc/cluster")
	// Through a chroot.
	output(t, "mount", "-t", "tmpfs", "root", other)
	defer output(t, "umount", "-R", other)
	for _, d := range []string{"proc", "usr", "bin", "lib", "lib64"} {
		if err := os.Mkdir(filepath.Join(other, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/" + d); err == nil {
			output(t, "mount", "--rbind", "/"+d, filepath.Join(other, d))
		}
	}
	if out := output(t, "chroot", other, "ps", "-e", "-o", "pid="); onlyFrom(out, 2) == "" || onlyFrom(out, 1) == "" {
		t.Errorf("ps in a chroot shows %s", out)
	}
}

// htop draws on a terminal: script(1) gives it one.
func TestViewHtop(t *testing.T) {
	remotePIDs(t)
	if _, err := exec.LookPath("htop"); err != nil {
		t.Skip("htop is not installed")
	}
	if _, err := exec.LookPath("script"); err != nil {
		t.Skip("script is not installed")
	}
	cmd := exec.Command("script", "-qec", "stty rows 100 cols 200; htop -C -d 1 --filter 'sleep 100001'", "/dev/null")
	cmd.Env = append(os.Environ(), "TERM=xterm", "LC_ALL=C", "HTOPRC=/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Second, func() { _, _ = in.Write([]byte("q")); _ = in.Close() })
	defer timer.Stop()
	kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	err = cmd.Wait()
	if text := out.String(); err != nil || !strings.Contains(text, "100001") {
		t.Errorf("htop: %v\n%q", err, text)
	}
}
