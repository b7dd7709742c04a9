package boot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ssi/internal/keeper"
	"ssi/internal/sys"
)

func put(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadReport(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	want := Report{Stage: "system", State: Running, Took: time.Second, Phases: []Phase{{Name: "a", State: Waiting, Why: "b", Start: 5}}}
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := ReadReport(dir)
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("%s, %v", a, err)
	}
	put(t, filepath.Join(dir, ReportFile), strings.Repeat(" ", maxReport+1), 0o644)
	if _, err := ReadReport(dir); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Error(err)
	}
	put(t, filepath.Join(dir, ReportFile), "{", 0o644)
	if _, err := ReadReport(dir); err == nil || !strings.HasPrefix(err.Error(), "read "+dir) {
		t.Error(err)
	}
}

// TestEarlierPhases: the report in the root goes on from that of the initramfs, also
// when the role boot has to begin again.
func TestEarlierPhases(t *testing.T) {
	dir := t.TempDir()
	b := newBoot(Options{RunDir: dir, Log: slog.New(slog.DiscardHandler)})
	names := func(stage string, own ...string) string {
		phases := b.earlier(stage)
		text := ""
		for _, p := range phases {
			text += p.Name + " "
		}
		for _, name := range own {
			phases = append(phases, Phase{Name: name, State: Done})
		}
		if err := (Report{Stage: stage, State: Done, Phases: phases}).write(dir); err != nil {
			t.Fatal(err)
		}
		return text
	}
	for _, c := range []struct {
		stage, own, want string
	}{
		{initramfsStage, "modules", "kernel "},
		{initramfsStage, "root", "kernel "},
		{systemStage, "modules", "kernel initramfs/root "},
		{systemStage, "mounts", "kernel initramfs/root "},
	} {
		if got := names(c.stage, c.own); got != c.want {
			t.Errorf("%s: %q, want %q", c.stage, got, c.want)
		}
	}
	put(t, filepath.Join(dir, ReportFile), "{", 0o644)
	if got := names(systemStage); got != "kernel " {
		t.Errorf("after a damaged report: %q", got)
	}
}

func TestFsckResult(t *testing.T) {
	for _, c := range []struct {
		status int
		want   string
		reboot bool
	}{
		{0, "is clean", false}, {1, "was repaired", false}, {2, "start anew", true}, {3, "start anew", true},
		{4, "by hand", false}, {6, "by hand", false}, {8, "could not be checked", false}, {32, "could not be checked", false},
	} {
		text, err := fsckResult("/dev/x", c.status)
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, c.want) || errors.Is(err, errReboot) != c.reboot || (c.status < 2) != (err == nil) {
			t.Errorf("%d: %q, %v", c.status, text, err)
		}
	}
}

// The checker's options and its end decide.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "fsck.ext4"), "#!/bin/sh\necho \"$@\"\nexit 1\n", 0o755)
	put(t, filepath.Join(dir, "fsck.xfs"), "#!/bin/sh\nkill -9 $$\n", 0o755)
	put(t, filepath.Join(dir, "fsck.none"), "", 0o644)
	var out bytes.Buffer
	b := newBoot(Options{Out: &out})
	b.path = []string{dir}
	for _, c := range []struct{ line, kind, want, args string }{
		{"", "ext4", "/dev/x was repaired", "-a -C0 /dev/x\n"},
		{"fsck.mode=force", "ext4", "/dev/x was repaired", "-a -C0 -f /dev/x\n"},
		{"fsck.mode=skip", "ext4", "not checked", ""},
		{"", "none", "there is no program fsck.none", ""},
		{"", "", "not checked", ""},
		{"", "xfs", "ended by signal: killed", ""},
	} {
		out.Reset()
		b.cmdline = ParseCommandLine(c.line)
		text, err := b.check(t.Context(), "/dev/x", c.kind)
		if err != nil {
			text = err.Error()
		}
		if !strings.Contains(text, c.want) || out.String() != c.args {
			t.Errorf("%q %s: %q, run with %q", c.line, c.kind, text, out.String())
		}
	}
}

type fakePID1 struct {
	root   string
	ending keeper.Ending
}

func (f *fakePID1) SwitchRoot(program string) error { f.root = program; return nil }
func (f *fakePID1) Watchdog(time.Duration) error    { return nil }
func (f *fakePID1) Shutdown(e keeper.Ending) error  { f.ending = e; return nil }

func TestRebootAfterCheck(t *testing.T) {
	p := &fakePID1{}
	b := newBoot(Options{PID1: p})
	if err := b.orReboot(nil); err != nil || p.ending != 0 {
		t.Error(err)
	}
	_, err := fsckResult("/dev/x", 3)
	if err := b.orReboot(err); !errors.Is(err, errStop) || p.ending != keeper.Reboot {
		t.Errorf("%v, %v", err, p.ending)
	}
}

func TestSysctl(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "sys")
	for _, key := range []string{"net/ipv4/conf/all/x", "net/ipv4/conf/eth0.5/x", "net/ipv4/conf/lo/x", "kernel/y"} {
		put(t, filepath.Join(root, key), "old", 0o644)
	}
	a := put(t, filepath.Join(dir, "1/50-a.conf"), `# comment
net.ipv4.conf.*.x = 2
-net.ipv4.conf.all.x
net/ipv4/conf/eth0.5/x = 7
kernel.y = 1
kernel.none = 1
`, 0o644)
	b := put(t, filepath.Join(dir, "2/60-b.conf"), "; comment\nkernel.y=last one\n../../etc/passwd = 1\nnonsense\n", 0o644)
	put(t, filepath.Join(dir, "2/50-a.conf"), "kernel.y = hidden by the other directory\n", 0o644)
	files := sysctlFiles([]string{filepath.Join(dir, "1"), filepath.Join(dir, "2")})
	if !slices.Equal(files, []string{a, b}) {
		t.Fatalf("%v", files)
	}
	_, err := applySysctls(root, append(files, filepath.Join(dir, "none")))
	for key, want := range map[string]string{"net/ipv4/conf/all/x": "old", "net/ipv4/conf/lo/x": "2", "net/ipv4/conf/eth0.5/x": "7", "kernel/y": "last one"} {
		if got, _ := os.ReadFile(filepath.Join(root, key)); string(got) != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	if err == nil || !strings.Contains(err.Error(), "60-b.conf:3:") || !strings.Contains(err.Error(), "60-b.conf:4:") {
		t.Error(err)
	}
}

func FuzzSysctl(f *testing.F) {
	f.Add("kernel.a = 1\n-net/ipv4/conf/*/b\n#\n../x = 2")
	f.Fuzz(func(t *testing.T, text string) {
		list, errs := parseSysctl("file", text)
		if len(list) > maxSysctls {
			t.Errorf("%d settings", len(list))
		}
		_ = errs
		for _, s := range list {
			if !fs.ValidPath(s.key) {
				t.Errorf("%q leaves /proc/sys", s.key)
			}
			pattern(s.key)
		}
	})
}

func TestSwapAreas(t *testing.T) {
	fstab, _ := ParseFstab("a none swap pri=5,discard\nb none swap noauto\nc none swap nofail\nd /x ext4\ne none swap pri=x\nf none swap pri=-1\n")
	list, err := swapAreas(fstab, []string{"g"}, ParseCommandLine("ssi.swap=/dev/h,LABEL=i"))
	want := []swapArea{
		{"a", sys.SwapPrefer | 5 | sys.SwapDiscard, false}, {"c", 0, true}, {"e", 0, false}, {"f", 0, false}, {"g", 0, false}, {"/dev/h", 0, false}, {"LABEL=i", 0, false},
	}
	if !slices.Equal(list, want) || err == nil || !strings.HasPrefix(err.Error(), "/etc/fstab:5: pri=x") {
		t.Errorf("%v, %v", list, err)
	}
	if got := swapsInUse("Filename Type Size Used Priority\n/dev/a\\040b partition 1 0 -2\n"); !slices.Equal(got, []string{"/dev/a b"}) {
		t.Errorf("%q", got)
	}
}

func TestClockAndSeed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	build := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	if at, why := earliest(build, filepath.Join(dir, clockFile)); !at.Equal(build) || why != "this binary" {
		t.Errorf("%s %s", at, why)
	}
	if err := saveSeed(dir, nil); err != nil {
		t.Fatal(err)
	}
	later := build.Add(time.Hour)
	for range 2 {
		if err := saveClock(dir, later); err != nil {
			t.Fatal(err)
		}
	}
	if at, why := earliest(build, filepath.Join(dir, clockFile)); !at.Equal(later) || why != "the last shutdown" {
		t.Errorf("%s %s", at, why)
	}
	seed, err := readSeed(filepath.Join(dir, seedFile))
	if err != nil || len(seed) != seedLen {
		t.Fatalf("%d bytes, %v", len(seed), err)
	}
	if err := saveSeed(dir, seed); err != nil {
		t.Fatal(err)
	}
	if again, _ := readSeed(filepath.Join(dir, seedFile)); bytes.Equal(seed, again) || len(again) != seedLen {
		t.Error("the seed was not replaced")
	}
	if info, _ := os.Stat(filepath.Join(dir, seedFile)); info.Mode() != 0o600 {
		t.Errorf("mode %s", info.Mode())
	}
}

func TestDevice(t *testing.T) {
	for spec, want := range map[string]string{
		"/dev/sda1": "/dev/sda1", "UUID=a-b": "/dev/disk/by-uuid/a-b", `PARTLABEL="x"`: "/dev/disk/by-partlabel/x",
		"LABEL=../../x": "", "sda1": "", "UUID=": "", "NONE=x": "",
	} {
		if got := devicePath(spec); got != want {
			t.Errorf("%s: %q, want %q", spec, got, want)
		}
	}
	b := newBoot(Options{})
	if path, err := b.device(t.Context(), "/dev/null", func(string) {}); path != "/dev/null" || err != nil {
		t.Errorf("%s, %v", path, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	said := ""
	_, err := b.device(ctx, "UUID=none", func(text string) { said = text; cancel(errors.New("enough")) })
	if err == nil || err.Error() != "device UUID=none does not appear: enough" || said != "waiting for UUID=none" {
		t.Errorf("%v, %q", err, said)
	}
}

// A disk that cannot be mounted says what the kernel lacks.
func TestMountDeviceFails(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: needs root: mount(2) says EPERM first")
	}
	var b boot
	dir := t.TempDir()
	for want, kinds := range map[string][]string{
		"this kernel has no driver for a file system on a disk":                                  nil,
		"this kernel has no driver for nosuchfs: no such device":                                 {"nosuchfs"},
		"there is no file system that this kernel knows (tried nosuchfs nonefs): no such device": {"nosuchfs", "nonefs"},
	} {
		if _, err := b.mountDevice(t.Context(), "/dev/null", dir, kinds, 0, ""); err == nil || err.Error() != "mount /dev/null on "+dir+": "+want {
			t.Errorf("%v: %v", kinds, err)
		}
	}
}

func TestInitOf(t *testing.T) {
	root := t.TempDir()
	put(t, filepath.Join(root, "usr/lib/systemd/systemd"), "", 0o755)
	put(t, filepath.Join(root, "usr/sbin/ssi"), "", 0o755)
	put(t, filepath.Join(root, "plain"), "", 0o644)
	for link, to := range map[string]string{"sbin": "usr/sbin", "usr/sbin/init": "/usr/lib/systemd/systemd", "loop": "/loop", "out": "../../../../bin/sh"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"": "/sbin/init", "init=/sbin/ssi": "/sbin/ssi", "init=/plain": "", "init=/loop": "", "init=/out": "", "init=ssi": "", "init=/none": "",
	} {
		if got, err := initOf(root, ParseCommandLine(line)); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", line, got, err)
		}
	}
}

func TestRootSpec(t *testing.T) {
	for line, want := range map[string]string{"": "", "root=/dev/sda1": "/dev/sda1", "root=tmpfs": "", "root=/dev/ram0": "", "root=UUID=5": "UUID=5"} {
		if got := rootSpec(ParseCommandLine(line)); got != want {
			t.Errorf("%q: %q", line, got)
		}
	}
}

func TestWatchdogTime(t *testing.T) {
	for line, want := range map[string]time.Duration{"": time.Minute, "ssi.watchdog=off": 0, "ssi.watchdog=0": 0, "ssi.watchdog=30": 30 * time.Second, "ssi.watchdog=2m": 2 * time.Minute} {
		if got, err := watchdogTime(ParseCommandLine(line), time.Minute); got != want || err != nil {
			t.Errorf("%q: %s, %v", line, got, err)
		}
	}
	for _, line := range []string{"ssi.watchdog=", "ssi.watchdog=1", "ssi.watchdog=-5s", "ssi.watchdog=99999h", "ssi.watchdog=soon"} {
		if got, err := watchdogTime(ParseCommandLine(line), 0); err == nil {
			t.Errorf("%q: %s", line, got)
		}
	}
}

func TestHostname(t *testing.T) {
	for text, want := range map[string]string{"": "", "\n# c\natlas\nother": "atlas", "  a.b \n": "a.b"} {
		if got := hostnameOf(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	for _, name := range []string{"a b", "-a", strings.Repeat("a", 65), "a\x1b[2J"} {
		b := newBoot(Options{Hostname: name})
		if _, err := b.setHostname(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "cannot be the name") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
