package netboot

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ssi/cluster/registry"
	"ssi/internal/api"
	"ssi/internal/config"
	"ssi/netboot/initramfs"
	"ssi/netboot/machine"
)

func TestClassNames(t *testing.T) {
	for _, class := range initramfs.Classes() {
		if got, ok := classOf(classImage(class)); !ok || got != class {
			t.Errorf("%s: %q, %v", classImage(class), got, ok)
		}
	}
	for _, name := range []string{"initrd.img", "initrd-.img", "initrd-nosuch.img", "initrd-vm", "vm", "initrd-../vm.img"} {
		if class, ok := classOf(name); ok {
			t.Errorf("%s: class %q", name, class)
		}
	}
	for name, want := range map[string]bool{kernelName: true, initramfsName: true, "initrd-vm.img": true, "initrd-x.img": false, ukiName: false, stampName: false, "": false} {
		if isBootFile(name) != want {
			t.Errorf("isBootFile(%q) is %v", name, !want)
		}
	}
	if 2+len(initramfs.Classes())+len(loaderNames()) > maxFiles {
		t.Errorf("more than %d boot files are possible", maxFiles)
	}
}

func TestClassesTodo(t *testing.T) {
	now := time.Now()
	c := classes{served: map[string]bool{"vm": true, "san": true}, failed: map[string]time.Time{"nics": now, "usb": now.Add(-classPause)}}
	news, gone := c.todo([]string{"disk", "nics", "usb", "vm"}, now)
	if !slices.Equal(news, []string{"disk", "usb"}) || !slices.Equal(gone, []string{"san"}) {
		t.Errorf("news %v, gone %v", news, gone)
	}
}

// A machine boots the initramfs of its class from when that is made until its class
// is another one; all others, and those of a class that fails, boot the common one.
func TestClassServed(t *testing.T) {
	reg := &memory{store: registry.NewStore()}
	said := &lockedWriter{w: new(bytes.Buffer)}
	table := machine.NewTable(reg, oneNode{})
	dir := t.TempDir()
	var failing atomic.Bool
	failing.Store(true)
	s := New(Config{
		Settings: config.Netboot{Enable: true}, Dir: dir, Registry: reg, Table: table,
		Log: slog.New(slog.NewTextHandler(said, nil)), Alarm: func(string) {},
		Make: func(_ context.Context, class string) error {
			if class == "san" && failing.Load() {
				return errors.New("no such modules")
			}
			return os.WriteFile(filepath.Join(dir, classImage(class)), archive(4096), 0o600)
		},
	})
	t.Cleanup(runBuilds(s))
	if _, err := table.Add(t.Context(), []api.MachineSpec{
		{MACs: []string{"02:00:00:00:00:02"}, Class: "vm"}, {MACs: []string{"02:00:00:00:00:03"}}, {MACs: []string{"02:00:00:00:00:04"}, Class: "san"},
	}); err != nil {
		t.Fatal(err)
	}
	for i := byte(2); i <= 4; i++ {
		s.addresses.set(machine.MAC{2, 0, 0, 0, 0, i}, netip.AddrFrom4([4]byte{10, 0, 0, i}))
	}
	if err := os.WriteFile(filepath.Join(dir, initramfsName), archive(4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, kernelName), bzImage(), 0o600); err != nil {
		t.Fatal(err)
	}
	entries, err := s.stock.collect()
	if err != nil {
		t.Fatal(err)
	}
	term := &term{Service: s, settings: s.Settings, server: netip.MustParseAddrPort("10.0.0.1:8067"), makes: true, entries: entries}
	if err := term.put(entries); err != nil {
		t.Fatal(err)
	}
	term.boot.Initramfs = initramfsName
	boots := func(i byte) string { return term.of(netip.AddrFrom4([4]byte{10, 0, 0, i})).Initramfs }
	if got := boots(2); got != initramfsName {
		t.Errorf("before it is made: %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); term.followClasses(ctx) }()
	defer func() { cancel(); <-done }()
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !is(); {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s; log: %s", what, said.text())
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	listed := func(name string) bool {
		shared, _, err := readShared(reg.Stale())
		return err == nil && shared != nil && slices.ContainsFunc(shared.Files, func(f File) bool { return f.Name == name })
	}
	until("the machine of class vm boots its own", func() bool { return boots(2) == "initrd-vm.img" && listed("initrd-vm.img") })
	until("the failure is reported", func() bool { return strings.Contains(said.text(), "no such modules") })
	if boots(3) != initramfsName || boots(4) != initramfsName || boots(9) != initramfsName {
		t.Errorf("others boot %s, %s, %s", boots(3), boots(4), boots(9))
	}
	none := ""
	if _, err := table.Change(t.Context(), "02:00:00:00:00:02", api.MachineChange{Class: &none}); err != nil {
		t.Fatal(err)
	}
	until("it is gone", func() bool {
		_, err := os.Stat(filepath.Join(dir, "initrd-vm.img"))
		return boots(2) == initramfsName && !listed("initrd-vm.img") && os.IsNotExist(err)
	})
}

// The next init serves the images that the cluster has listed, and no others.
func TestClassMirrored(t *testing.T) {
	reg := &memory{store: registry.NewStore()}
	s := New(Config{Dir: t.TempDir(), Registry: reg, Table: machine.NewTable(reg, oneNode{}), Log: slog.New(slog.DiscardHandler), Alarm: func(string) {}})
	for _, name := range []string{initramfsName, "initrd-vm.img", "initrd-san.img"} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), archive(4096), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir, kernelName), bzImage(), 0o600); err != nil {
		t.Fatal(err)
	}
	entries, err := s.stock.collect()
	if err != nil {
		t.Fatal(err)
	}
	term := &term{Service: s, entries: entries}
	if err := term.share(t.Context(), Shared{Files: []File{{Name: "initrd-vm.img"}}}); err != nil {
		t.Fatal(err)
	}
	term.addClasses()
	if err := term.put(term.entries); err != nil {
		t.Fatal(err)
	}
	if term.initramfs("vm") != "initrd-vm.img" || term.initramfs("san") != initramfsName || term.initramfs("") != initramfsName {
		t.Errorf("vm: %s, san: %s", term.initramfs("vm"), term.initramfs("san"))
	}
}

func TestMakeUnknownClass(t *testing.T) {
	_, _, err := MakeFiles(t.Context(), t.TempDir(), t.TempDir(), config.Netboot{}, "toaster", initramfs.Config{})
	if err == nil || !strings.Contains(err.Error(), "toaster") || !strings.Contains(err.Error(), "desktop") {
		t.Errorf("error %v", err)
	}
}
