package ntp

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// The clock is only ours when nobody else has it.
func TestMayDiscipline(t *testing.T) {
	proc := func(ns string, comms ...string) fs.FS {
		fsys := fstest.MapFS{"self/ns/pid": {Mode: fs.ModeSymlink, Data: []byte(ns)}, "version": {Data: []byte("chronyd")}}
		for i, comm := range comms {
			fsys[fmt.Sprintf("%d/comm", i+1)] = &fstest.MapFile{Data: []byte(comm + "\n")}
		}
		return fsys
	}
	for _, c := range []struct {
		mode Mode
		owns bool
		proc fs.FS
		ok   bool
		why  string
	}{
		{ModeAuto, true, proc(initPIDNamespace, "ssi", "bash"), true, ""},
		{ModeAuto, false, proc(initPIDNamespace, "systemd"), false, "not the init"},
		{ModeAuto, true, proc("pid:[4026532000]", "ssi"), false, "container"},
		{ModeAuto, true, proc(initPIDNamespace, "ssi", "systemd-timesyn"), false, "systemd-timesyn (process 2)"},
		{ModeOn, false, proc("pid:[4026532000]", "x"), true, ""},
		{ModeOn, false, proc(initPIDNamespace, "chronyd"), false, "chronyd"},
		{ModeObserve, true, proc(initPIDNamespace), false, "configuration"},
	} {
		ok, why := MayDiscipline(c.mode, c.owns, c.proc)
		if ok != c.ok || !strings.Contains(why, c.why) {
			t.Errorf("%s, owns %v: %v %q, want %v %q", c.mode, c.owns, ok, why, c.ok, c.why)
		}
	}
	if CheckMode("maybe") == nil || CheckMode(ModeAuto) != nil {
		t.Error("CheckMode")
	}
}

// The real procfs has what MayDiscipline reads, and the system clock is not
// touched by a test: reading is all there is here.
func TestSurveyOfThisMachine(t *testing.T) {
	if ok, why := MayDiscipline(ModeAuto, false, os.DirFS("/proc")); ok || why == "" {
		t.Errorf("%v %q", ok, why)
	}
	if ns, err := fs.ReadLink(os.DirFS("/proc"), "self/ns/pid"); err != nil || !strings.HasPrefix(ns, "pid:[") {
		t.Errorf("%q, %v", ns, err)
	}
}

// The kernel's time of arrival is close to ours.
func TestKernelTime(t *testing.T) {
	addr := freePort(t)
	s, err := Open(Config{Serve: true, Listen: []netip.AddrPort{addr}, Allow: everyone, Log: slog.New(slog.DiscardHandler), Why: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Follow(Role{Init: true})
	eventually(t, "it serves", func() bool { return s.Status().Serving })
	_, answers := askOnce(addr)
	if len(answers[0]) != 1 || answers[0][0].Offset.Abs() > 50*time.Millisecond {
		t.Errorf("answers %+v", answers)
	}
	if _, ok := kernelTime([]byte{1, 2, 3}); ok {
		t.Error("garbage has a time")
	}
}

// chrony takes our time and finds the same offset as we do. Its option -Q sets no
// clock.
func TestChronyAsksUs(t *testing.T) {
	chronyd, err := exec.LookPath("chronyd")
	if err != nil {
		if chronyd = "/usr/sbin/chronyd"; !executable(chronyd) {
			t.Skip("chronyd is missing (package chrony)")
		}
	}
	if os.Getuid() != 0 {
		t.Skip("chronyd wants root")
	}
	_, addr := openInit(t, newSoftClock(1500*time.Millisecond), nil)
	dir := t.TempDir()
	conf := filepath.Join(dir, "chrony.conf")
	text := fmt.Sprintf("server %s port %d iburst\ncmdport 0\nbindcmdaddress /\npidfile %s/pid\nuser root\n", addr.Addr(), addr.Port(), dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), chronyd, "-Q", "-t", "30", "-f", conf).CombinedOutput()
	if err != nil {
		t.Fatalf("chronyd: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`System clock wrong by (-?[0-9.]+) seconds`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("chronyd says:\n%s", out)
	}
	if wrong, err := strconv.ParseFloat(string(m[1]), 64); err != nil || wrong < 1.49 || wrong > 1.51 {
		t.Errorf("chronyd finds %s seconds, want 1.5", m[1])
	}
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}
