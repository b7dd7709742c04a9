package kmod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	Loaded    []Loaded // modules new in the kernel, For being the device
	Failed    []Loaded // and those that failed, with the cause
}

// Summary is one line for the console.
func (r Report) Summary() string {
	s := fmt.Sprintf("%d devices, %d modules loaded", r.Devices, len(r.Loaded))
	if len(r.Failed) > 0 {
		s += fmt.Sprintf(", %d failed", len(r.Failed))
	}
	return s
}

// Coldplug loads the modules of all devices below sys ("/sys"). As drivers
// bring new devices it looks again until there are no more. Nothing that fails
// keeps the rest from being loaded; the error is that of ctx or of a sys that
// cannot be read at all.
func (l *Loader) Coldplug(ctx context.Context, sys string) (Report, error) {
	var r Report
	seen := map[string]bool{}
	failed := map[string]bool{}
	for range maxRounds {
		devices, err := modaliases(ctx, sys)
		if err != nil {
			return r, fmt.Errorf("look for devices: %w", err)
		}
		r.Devices, r.Unmatched = len(devices), 0
		news := false
		for _, d := range devices {
			if err := ctx.Err(); err != nil {
				return r, fmt.Errorf("load modules for devices: %w", err)
			}
			all, err := l.Load(d.modalias)
			if errors.Is(err, ErrUnknown) {
				r.Unmatched++
				continue
			}
			news = news || !seen[d.path]
			seen[d.path] = true
			for _, m := range all {
				m.For = d.path
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

// device is one that wants a driver.
type device struct{ path, modalias string }

// modaliases finds them, in order of their paths.
func modaliases(ctx context.Context, sys string) ([]device, error) {
	root := filepath.Join(sys, "devices")
	var all []device
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p == root {
				return err
			}
			return nil // a device that went away meanwhile
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.Name() != "modalias" || d.IsDir() || len(all) >= maxDevices {
			return nil
		}
		b, err := readBounded(p, maxModalias)
		if alias := strings.TrimSpace(string(b)); err == nil && alias != "" {
			all = append(all, device{strings.TrimPrefix(filepath.Dir(p), sys), alias})
		}
		return nil
	})
	slices.SortFunc(all, func(a, b device) int { return strings.Compare(a.path, b.path) })
	return all, err
}
