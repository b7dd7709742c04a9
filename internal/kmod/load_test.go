package kmod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeKernel takes modules, some with an error, and runs a hook after each.
type fakeKernel struct {
	mu     sync.Mutex
	log    []string
	errs   map[string]error
	loaded func(name string)
}

func (k *fakeKernel) Insert(file, params string) error {
	name := fileName(file)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.log = append(k.log, strings.TrimSpace(name+" "+params))
	if k.loaded != nil {
		k.loaded(name)
	}
	return k.errs[name]
}

func (k *fakeKernel) calls() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.log, "; ")
}

func TestLoad(t *testing.T) {
	rules := NewRules()
	rules.AddFile("test.conf", "options nf_conntrack hashsize=9\ninstall of /bin/true\n")
	k := &fakeKernel{errs: map[string]error{"crc32c_intel": unix.ENODEV, "nf_defrag": unix.EEXIST, "e1000": unix.ENOEXEC}}
	l := NewLoader(open(t, sample(t)), rules, k)
	all, err := l.Load("ip_vs", "conn_tab_bits=8")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := k.calls(), "crc32c_intel; crc32c_generic; libcrc32c; nf_defrag; nf_conntrack hashsize=9; ip_vs conn_tab_bits=8"; got != want {
		t.Errorf("loaded %q, want %q", got, want)
	}
	if all[0].Err == nil || all[0].Needed || all[3].New || all[3].Err != nil || !all[5].New {
		t.Errorf("results: %+v", all)
	}
	for i, name := range []string{"net-pf-16-proto-16-family-IPVS", "ip_vs"} {
		// For a device not again, for somebody who names it again.
		if _, err := l.Load(name); err != nil || strings.Count(k.calls(), "libcrc32c") != 1+i {
			t.Errorf("again by %s: %v, %s", name, err, k.calls())
		}
	}
	if _, err := l.Load("e1000"); !errors.Is(err, unix.ENOEXEC) || !strings.Contains(err.Error(), "damaged or made for another kernel") {
		t.Errorf("bad module: %v", err)
	}
	if _, err := l.Load("of"); err == nil || !strings.Contains(err.Error(), "test.conf:2: install of /bin/true") {
		t.Errorf("refused: %v", err)
	}
	if _, err := l.Load("nosuch"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
}

// sysfs makes devices below a new sys.
func sysfs(t *testing.T, devices map[string]string) string {
	t.Helper()
	sys := t.TempDir()
	for path, alias := range devices {
		plug(t, sys, path, alias)
	}
	return sys
}

func plug(t *testing.T, sys, path, alias string) {
	t.Helper()
	dir, bus := filepath.Join(sys, "devices", path), filepath.Join(sys, "bus/acme/devices")
	for _, d := range []string{dir, bus} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if filepath.Dir(path) != "system" {
		if err := os.Symlink(filepath.Join("../../../devices", path), filepath.Join(bus, strings.ReplaceAll(path, "/", "."))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "modalias"), []byte(alias+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
}

// The driver of one device brings another one, and what fails keeps nothing else.
func TestColdplug(t *testing.T) {
	sys := sysfs(t, map[string]string{
		"pci0/1": "pci:v00008086d0000100Esvsdbcsci", "pci0/2": "virtio:d00000002v00001AF4", "system/cpu": "cpu:type:x86,ven0fam6:feature:,0094,", "x": "nobody:knows",
	})
	k := &fakeKernel{errs: map[string]error{"crc32c_intel": unix.ENODEV}}
	k.loaded = func(name string) {
		if name == "e1000" {
			plug(t, sys, "pci0/1/child", "of:NethT(null)Cacme,nic/v2")
		}
	}
	l := NewLoader(open(t, sample(t)), nil, k)
	r, err := l.Coldplug(t.Context(), sys, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := k.calls(); got != "e1000; crc32c_intel; of" {
		t.Errorf("loaded %s", got)
	}
	if r.Summary() != "5 devices, 2 modules loaded, 1 failed" || r.Unmatched != 1 {
		t.Errorf("report: %s, %+v", r.Summary(), r)
	}
	if len(r.Failed) != 1 || r.Failed[0].For != "/devices/system/cpu" || !errors.Is(r.Failed[0].Err, unix.ENODEV) {
		t.Errorf("failed: %+v", r.Failed)
	}
	if len(r.Loaded) != 2 || r.Loaded[1].For != "/devices/pci0/1/child" {
		t.Errorf("loaded: %+v", r.Loaded)
	}
	k = &fakeKernel{}
	l = NewLoader(open(t, sample(t)), nil, k)
	if r, err = l.Coldplug(t.Context(), sys, Urgent); err != nil || k.calls() != "e1000; of" || r.Summary() != "5 devices, 2 modules loaded; 1 left for later" {
		t.Errorf("only what is urgent: %v, %s, %s", err, k.calls(), r.Summary())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Coldplug(ended, sys, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if _, err := l.Coldplug(t.Context(), filepath.Join(sys, "nosuch"), nil); err == nil {
		t.Error("no error without sysfs")
	}
}

// Nothing below /sys/devices has a modalias but what buses and classes list.
func TestModaliases(t *testing.T) {
	walk := func() map[string]bool {
		found := map[string]bool{}
		_ = filepath.WalkDir("/sys/devices", func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "modalias" {
				if b, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(b)) != "" {
					found[strings.TrimPrefix(filepath.Dir(p), "/sys")] = true
				}
			}
			return nil
		})
		return found
	}
	before := walk()
	if len(before) == 0 {
		t.Skip("skipped: no device here has a modalias")
	}
	all, err := modaliases(t.Context(), "/sys")
	if err != nil {
		t.Fatal(err)
	}
	after := walk()
	got := map[string]bool{}
	for _, d := range all {
		if got[d.Path] {
			t.Errorf("%s: twice", d.Path)
		}
		got[d.Path] = true
	}
	for path := range before {
		if after[path] && !got[path] { // it was there all the time
			t.Errorf("%s: missed", path)
		}
	}
}

// What is loaded is not read again.
func TestLive(t *testing.T) {
	sys := t.TempDir()
	for name, state := range map[string]string{"crc_itu_t": "live", "loop": "coming"} {
		dir := filepath.Join(sys, "module", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "initstate"), []byte(state+"\n"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	s := NewSystem(sys)
	for file, loaded := range map[string]bool{"lib/crc-itu-t.ko.xz": true, "drivers/block/loop.ko": false, "fs/fuse.ko": false} {
		err := s.Insert(filepath.Join(t.TempDir(), file), "")
		if err == nil || errors.Is(err, unix.EEXIST) != loaded {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestParseEvent(t *testing.T) {
	e, err := ParseEvent([]byte("add@/devices/a/b\x00ACTION=add\x00DEVPATH=/devices/a/b\x00SUBSYSTEM=block\x00MODALIAS=x:y=z\x00DEVNAME=sda1\x00DEVTYPE=partition\x00SEQNUM=7\x00"))
	if want := (Event{"add", "/devices/a/b", "block", "x:y=z", "sda1", "partition"}); err != nil || e != want {
		t.Errorf("%+v, %v", e, err)
	}
	for _, bad := range []string{"", "add@/x", "libudev\x00\xfe", "@/x\x00", "add@x\x00", "add@/x\x00ACTION=remove\x00", "add@/x\x00DEVPATH=/y\x00",
		"add@/x\x00" + strings.Repeat("A=1\x00", maxKeys+1), "add@/x\x00" + strings.Repeat("x", maxEvent)} {
		if e, err := ParseEvent([]byte(bad)); err == nil {
			t.Errorf("%.40q is %+v", bad, e)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add([]byte("add@/devices/a\x00ACTION=add\x00MODALIAS=x\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := ParseEvent(b); err == nil && (e.Action == "" || e.Path == "") {
			t.Errorf("%q is %+v", b, e)
		}
	})
}

func always(t *testing.T, k Kernel) func() (*Loader, error) {
	l := NewLoader(open(t, sample(t)), nil, k)
	return func() (*Loader, error) { return l, nil }
}

// A socket that another process sends to gives nothing; a closed one ends Run.
func TestHotplug(t *testing.T) {
	events, err := Listen()
	if err != nil {
		t.Skipf("no socket for kernel events: %v", err)
	}
	defer events.Close()
	sys := sysfs(t, map[string]string{"a": "pci:v00008086d0000100Esvsdbcsci"})
	done := make(chan struct{})
	k := &fakeKernel{loaded: func(string) { close(done) }}
	h := &Hotplug{Loader: always(t, k), Events: events, Sys: sys, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the module of a device that was there is not loaded")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// The events of a device go to its module; a lost event means everything again.
func TestHotplugHandle(t *testing.T) {
	k := &fakeKernel{}
	h := &Hotplug{Loader: always(t, k), Log: slog.New(slog.DiscardHandler)}
	for i, action := range []string{"remove", "add", "add", "change"} {
		if h.handle(Event{Action: action, Path: fmt.Sprint("/devices/", i), Modalias: "pci:v00008086d0000100Esvsdbcsci"}) {
			t.Error("a network card is a disk")
		}
	}
	h.handle(Event{Action: "add", Path: "/devices/x", Modalias: "nobody:knows"})
	if k.calls() != "e1000" {
		t.Errorf("loaded %s", k.calls())
	}
	if !h.handle(Event{Action: "remove", Path: "/devices/sda", Subsystem: "block"}) {
		t.Error("a disk is none")
	}
}

// What is there already has its turn when there is time; a kernel without modules
// costs nothing but a line of the log.
func TestHotplugSettles(t *testing.T) {
	settled, asked := make(chan struct{}), make(chan struct{})
	sys := sysfs(t, map[string]string{"a": "pci:v00008086d0000100Esvsdbcsci"})
	h := &Hotplug{
		Loader: func() (*Loader, error) {
			select {
			case <-settled:
			default:
				t.Error("everything is looked at before there is time")
			}
			close(asked)
			return nil, fs.ErrNotExist
		},
		Events: &source{}, Settled: settled, Sys: sys, Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	close(settled)
	<-asked
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// A device that appeared before the events were listened to is not kept waiting for
// what is not urgent.
func TestHotplugMissed(t *testing.T) {
	sys := sysfs(t, map[string]string{"a": "pci:v00008086d0000100Esvsdbcsci", "system/cpu": "cpu:type:x86,ven0fam6:feature:,0094,"})
	synctest.Test(t, func(t *testing.T) {
		k := &fakeKernel{}
		settled := make(chan struct{})
		h := &Hotplug{Loader: always(t, k), Events: &source{}, Settled: settled, Sys: sys, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		for _, c := range []struct {
			after time.Duration
			want  string
		}{{missedTime - time.Millisecond, ""}, {time.Millisecond, "e1000"}, {time.Hour, "e1000"}} {
			<-time.After(c.after)
			synctest.Wait()
			if got := k.calls(); got != c.want {
				t.Errorf("%v later: loaded %q, want %q", c.after, got, c.want)
			}
		}
		close(settled)
		synctest.Wait()
		if got := k.calls(); got != "e1000; crc32c_intel" {
			t.Errorf("settled: loaded %q", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// source gives events until it says that some were lost, and then one after
// which it waits for the context.
type source struct {
	flood  int // events to give
	before func()
	ended  bool
}

func (s *source) Next(ctx context.Context) (Event, error) {
	if s.flood > 0 {
		s.flood--
		return Event{Action: "add", Path: "/devices/x", Modalias: "nobody:knows"}, nil
	}
	if s.before != nil {
		s.before()
		s.before = nil
		return Event{}, errOverflow
	}
	if s.ended {
		return Event{}, unix.EBADF
	}
	<-ctx.Done()
	return Event{}, ctx.Err()
}

// When events are lost, by the kernel or because too many wait, everything is
// looked at again.
func TestHotplugOverflow(t *testing.T) {
	for name, flood := range map[string]int{"kernel": 0, "queue": 3 * maxQueue} {
		sys := sysfs(t, map[string]string{"x": "nobody:knows"})
		done := make(chan struct{})
		k := &fakeKernel{loaded: func(string) { close(done) }}
		from := &source{flood: flood, before: func() { plug(t, sys, "new", "pci:v00008086d0000100Esvsdbcsci") }}
		h := &Hotplug{Loader: always(t, k), Events: from, Sys: sys, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the device whose event was lost has no module", name)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: Run: %v", name, err)
		}
	}
}

// A socket that fails ends Run with its error.
func TestHotplugFails(t *testing.T) {
	h := &Hotplug{Loader: always(t, &fakeKernel{}), Events: &source{ended: true}, Sys: sysfs(t, map[string]string{"x": "y"}), Log: slog.New(slog.DiscardHandler)}
	if err := h.Run(t.Context()); !errors.Is(err, unix.EBADF) {
		t.Errorf("Run: %v", err)
	}
}

// Only what the kernel sent counts.
func TestEventsFromOthers(t *testing.T) {
	events, err := Listen()
	if err != nil {
		t.Skipf("no socket for kernel events: %v", err)
	}
	defer events.Close()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var to *unix.SockaddrNetlink
	raw, err := events.file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(own uintptr) {
		if sa, err := unix.Getsockname(int(own)); err == nil {
			to, _ = sa.(*unix.SockaddrNetlink)
		}
	}); err != nil || to == nil {
		t.Fatalf("address of the socket: %v", err)
	}
	forged := []byte("add@/devices/forged\x00ACTION=add\x00DEVPATH=/devices/forged\x00MODALIAS=evil\x00")
	if err := unix.Sendto(fd, forged, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: to.Pid}); err != nil {
		t.Skipf("this kernel lets nobody send such events: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for {
		e, err := events.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil || e.Path == "/devices/forged" {
			t.Fatalf("event %+v, %v", e, err)
		}
	}
}
