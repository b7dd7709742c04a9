package test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ssi/internal/id"
	"ssi/lab"
)

// A suite is a set of named programs of others, and a script that runs those
// which its arguments name and prints a line "NAME OUTCOME" for each.
type suite struct {
	script string // of sh
	names  []string
	rounds int // how often what differs is compared again, because some programs race with themselves
}

// run runs programs of the suite by a command that takes the script and its
// arguments, and returns the outcomes by name.
func (s suite) run(t *testing.T, names []string, by func(argv ...string) string) map[string]string {
	t.Helper()
	out := by(append([]string{"sh", "-c", s.script, "suite"}, names...)...)
	outcomes := map[string]string{}
	for line := range strings.Lines(out) {
		name, outcome, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		outcomes[name] = outcome
	}
	if len(outcomes) != len(names) {
		t.Errorf("%d outcomes of %d programs:\n%s", len(outcomes), len(names), out)
	}
	return outcomes
}

// compare runs the suite on plain Linux, on node 1 and by onnode on node 2: every
// program has the same outcome.
func (s suite) compare(c *cluster) {
	c.t.Helper()
	plain := func(argv ...string) string { return plainLinux(c.t, argv...) }
	want := s.run(c.t, s.names, plain)
	for _, at := range [][]string{nil, {"onnode", "2"}} {
		clustered := func(argv ...string) string {
			got := c.login(1, "", append(at[:len(at):len(at)], argv...)...)
			if got.status != 0 || got.stderr != "" {
				c.t.Errorf("%v: status %d, stderr %q", at, got.status, got.stderr)
			}
			return got.stdout
		}
		names, oracle := s.names, want
		for round := 0; ; round++ {
			var differ []string
			got := s.run(c.t, names, clustered)
			for _, name := range names {
				if got[name] != oracle[name] {
					differ = append(differ, name)
				}
			}
			if len(differ) == 0 {
				break
			}
			if round == s.rounds {
				for _, name := range differ {
					c.t.Errorf("%v %s: %q, on plain Linux %q", at, name, got[name], oracle[name])
				}
				break
			}
			names, oracle = differ, s.run(c.t, differ, plain)
		}
	}
	tally := map[string]int{}
	for _, outcome := range want {
		tally[outcome]++
	}
	c.t.Logf("%d programs by outcome: %v", len(want), tally)
}

// stressScript runs stressors that are given as NAME:OPERATIONS, at most as long
// as no machine needs, and tells the status and what it has to say, without PIDs.
const stressScript = `cd /tmp; for x; do
	out=$(timeout -k 5 60 stress-ng --temp-path /tmp --verify --timeout 50s --${x%:*} 1 --${x%:*}-ops ${x#*:} 2>&1 </dev/null)
	echo "$x $? $(echo "$out" | sed -nE 's/\[[0-9]+\] //; /dispatching hogs|defaulting to|setting to|run completed in/d; s/^stress-ng: //p' | tr '\n' ' ')"
done`

// TestStressNG: the stressors of stress-ng(1) about processes verify what the
// kernel does, also those that walk all of /proc, where the processes of other
// nodes are.
func TestStressNG(t *testing.T) {
	c := start(t, 2)
	stressors := strings.Fields(`kill:200 sigq:200 sigrt:200 sigsuspend:200 sigpending:200 sigfd:200 sigchld:200
		signal:200 fork:100 vfork:100 clone:100 daemon:50 wait:100 zombie:100 session:50 set:20 get:20 pidfd:200 procfs:1
		affinity:50 schedpolicy:3 nice:3 ioprio:20 rlimit:50 prctl:20 ptrace:200 seccomp:20 kcmp:20 resched:100
		exit-group:20 pthread:20 enosys:1 x86syscall:20 itimer:50 cap:20 sysbadaddr:20 userfaultfd:2 msg:500
		sem-sysv:500 shm-sysv:2`)
	suite{script: stressScript, names: stressors, rounds: 1}.compare(c)

	// As a user who may less, those that act differently.
	user := `exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '` + strings.ReplaceAll(stressScript, "'", `'\''`) + `' suite "$@"`
	suite{script: user, names: strings.Fields("kill:50 sigq:50 fork:20 spawn:5 get:5 procfs:1 pidfd:50 ptrace:50 nice:1 rlimit:10 cap:20"), rounds: 1}.compare(c)
}

// interfaces are those of the Open POSIX Test Suite that are about processes. Left
// out is what keeps all processors busy at a real-time priority, as parts of
// sched_setparam do: a node whose daemon gets no processor leaves the cluster.
const interfaces = `kill killpg raise sigqueue sigwait sigwaitinfo sigtimedwait sigsuspend sigpending pthread_kill
	sched_get_priority_max sched_get_priority_min sched_getparam sched_getscheduler sched_rr_get_interval sched_setparam
	sched_setscheduler fork getpid pthread_setschedparam pthread_getschedparam pthread_setschedprio pthread_getcpuclockid`

// leftOut are the programs that are left out: those, and fork 11-1, which hangs on
// every Linux.
const leftOut = `sched_setparam.2-1 sched_setparam.2-2 sched_setparam.9-1 sched_setparam.10-1 sched_setscheduler.1-1
	sched_setscheduler.16-1 sched_setscheduler.17-1 sched_setscheduler.17-2 sched_setscheduler.17-3 sched_setscheduler.17-4
	sched_setscheduler.17-5 sched_setscheduler.17-6 sched_setscheduler.17-7 fork.11-1`

// TestPOSIXSuite: Debian's source package posixtestsuite, whose programs exit with
// 0 passed, 1 failed, 2 unresolved, 4 unsupported or 5 untested.
func TestPOSIXSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: it takes long: run without -short")
	}
	dir := enterable(t)
	names := buildPOSIXSuite(t, dir)
	c := start(t, 2, profile("wan"), func(o *lab.Options) { o.Share = append(o.Share, dir) })
	s := suite{
		// Most of them sleep most of the time.
		script: fmt.Sprintf(`cd %s && printf '%%s\n' "$@" | xargs -P 16 -I{} sh -c 'timeout -k 1 20 ./{} >/dev/null 2>&1 </dev/null; echo {} $?'`, dir),
		names:  names,
		rounds: 3,
	}
	s.compare(c)
	for n := id.Node(1); n <= 2; n++ {
		c.do(n, "clusternode_num")
	}
}

// buildPOSIXSuite gets and compiles the programs, and returns their names.
func buildPOSIXSuite(t *testing.T, dir string) []string {
	t.Helper()
	source := posixSource(t)
	skip := map[string]bool{}
	for _, name := range strings.Fields(leftOut) {
		skip[name] = true
	}
	var names, list []string
	for _, name := range strings.Fields(interfaces) {
		files, err := filepath.Glob(filepath.Join(source, "conformance/interfaces", name, "[0-9]*-[0-9]*.c"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no programs of %s: %v", name, err)
		}
		for _, src := range files {
			program := name + "." + strings.TrimSuffix(filepath.Base(src), ".c")
			if !skip[program] {
				names, list = append(names, program), append(list, src+" "+program)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	make := exec.CommandContext(ctx, "xargs", "-P", "4", "-L", "1", "sh", "-c",
		`gcc -w -pipe -std=gnu99 -D_GNU_SOURCE -I "$0/include" -o "$1/$3" "$2" -lpthread -lrt -lm 2>"$1/$3.err"; exit 0`, source, dir)
	make.Stdin = strings.NewReader(strings.Join(list, "\n") + "\n")
	if msg, err := make.CombinedOutput(); err != nil {
		t.Fatalf("compile the programs: %v\n%s", err, msg)
	}
	var built []string
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			built = append(built, name)
		}
	}
	if len(built) < 140 {
		t.Fatalf("only %d of %d programs can be compiled", len(built), len(names))
	}
	return built
}

// posixSource fetches the source package by apt-get(8), which checks its
// signature, and unpacks it.
func posixSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script := `. /etc/os-release && mkdir -p lists/partial &&
	echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $VERSION_CODENAME main" >src.list &&
	o="-qq -o Dir::Etc::sourcelist=$PWD/src.list -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$PWD/lists -o APT::Sandbox::User=root -o Acquire::http::Timeout=20" &&
	apt-get $o update && apt-get $o source --download-only --tar-only posixtestsuite && tar xzf posixtestsuite_*.orig.tar.gz`
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("skipped: Debian's source package posixtestsuite cannot be had: %v\n%s", err, out)
	}
	return filepath.Join(dir, "posixtestsuite")
}
