package kmod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxDevices  = 65536
	maxModalias = 4096 // bytes; the kernel's limit is a page
	maxRounds   = 8    // a bus below a bus below a bus
)

// Report is what Coldplug did.
type Report struct {
	Devices   int      // with a modalias
	Unmatched int      // for which no module is known: most of them need none
	Later     int      // that were left for later
	Loaded    []Loaded // modules new in the kernel, For being the device
	Failed    []Loaded // and those that failed, with the cause
}

// Summary is one line for the console.
func (r Report) Summary() string {
	s := fmt.Sprintf("%d devices, %d modules loaded", r.Devices, len(r.Loaded))
	if len(r.Failed) > 0 {
		s += fmt.Sprintf(", %d failed", len(r.Failed))
	}
	if r.Later > 0 {
		s += fmt.Sprintf("; %d left for later", r.Later)
	}
	return s
}

// Coldplug loads the modules of the devices below sys ("/sys") that are to be served
// now, as Urgent says; nil means all. As drivers bring new devices it looks again until
// there are no more. Nothing that fails keeps the rest from being loaded; the error is
// that of ctx or of a sys that cannot be read at all.
func (l *Loader) Coldplug(ctx context.Context, sys string, now func(Device) bool) (Report, error) {
	var r Report
	seen := map[string]bool{}
	failed := map[string]bool{}
	for range maxRounds {
		devices, err := modaliases(ctx, sys)
		if err != nil {
			return r, fmt.Errorf("look for devices: %w", err)
		}
		r.Devices = len(devices)
		news := false
		for _, d := range devices {
			if err := ctx.Err(); err != nil {
				return r, fmt.Errorf("load modules for devices: %w", err)
			}
			if seen[d.Path] {
				continue
			}
			seen[d.Path] = true
			if now != nil && !now(d) {
				r.Later++
				continue
			}
			all, err := l.Load(d.Modalias)
			if errors.Is(err, ErrUnknown) {
				r.Unmatched++
				continue
			}
			news = true
			for _, m := range all {
				m.For = d.Path
				switch {
				case m.Err != nil && m.Needed && !failed[m.Module]:
					failed[m.Module] = true
					r.Failed = append(r.Failed, m)
				case m.New:
					r.Loaded = append(r.Loaded, m)
				}
			}
		}
		if !news {
			break
		}
	}
	return r, nil
}

// Device is one that may want a driver.
type Device struct {
	Path     string // below /sys
	Modalias string
	Bound    bool // it has one
}

// modaliases finds them, in order of their paths: by the lists of each bus and
// class, and the buses' own devices, of which cpu has a modalias (kernel file
// Documentation/admin-guide/sysfs-rules.rst). Those are a tenth of what is below
// /sys/devices, where walking takes a slow processor longer than the drivers.
func modaliases(ctx context.Context, sys string) ([]Device, error) {
	dirs := []string{"devices/system"}
	for _, d := range [...]struct{ lists, below string }{{"bus", "devices"}, {"class", ""}} {
		names, err := readNames(filepath.Join(sys, d.lists))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, name := range names {
			dirs = append(dirs, filepath.Join(d.lists, name, d.below))
		}
	}
	if _, err := os.Stat(filepath.Join(sys, "devices")); err != nil {
		return nil, err
	}
	var all []Device
	for _, dir := range dirs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		names, err := readNames(filepath.Join(sys, dir))
		if err != nil {
			continue // it went away meanwhile
		}
		for _, name := range names {
			at := filepath.Join(sys, dir, name)
			b, err := readBounded(filepath.Join(at, "modalias"), maxModalias)
			alias := strings.TrimSpace(string(b))
			if err != nil || alias == "" {
				continue
			}
			if len(all) >= maxDevices {
				break
			}
			if to, err := os.Readlink(at); err == nil {
				at = filepath.Join(filepath.Dir(at), to)
			}
			_, err = os.Lstat(filepath.Join(at, "driver"))
			all = append(all, Device{strings.TrimPrefix(at, sys), alias, err == nil})
		}
	}
	slices.SortFunc(all, func(a, b Device) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// readNames lists a directory, in no order.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
