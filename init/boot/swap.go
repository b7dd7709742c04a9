package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// swapArea is a swap area of this node: each node has its own.
type swapArea struct {
	spec  string
	flags int
	lax   bool // nofail
}

// swapAreas are those of fstab(5), of the configuration and of ssi.swap= of the
// kernel command line, which a node without a disk of its own has.
func swapAreas(fstab []Mount, config []string, c CommandLine) ([]swapArea, error) {
	var list []swapArea
	var errs []error
	for _, m := range fstab {
		if m.Type != "swap" || m.has("noauto") {
			continue
		}
		a := swapArea{spec: m.Spec, lax: m.has("nofail")}
		if v, ok := m.value("pri"); ok {
			pri, err := strconv.ParseInt(v, 10, 16)
			if err != nil {
				errs = append(errs, fmt.Errorf("/etc/fstab:%d: pri=%s: a priority is from 0 to 32767", m.Line, v))
			} else if pri >= 0 {
				a.flags |= sys.SwapPrefer | int(pri)
			}
		}
		if _, ok := m.value("discard"); ok || m.has("discard") {
			a.flags |= sys.SwapDiscard
		}
		list = append(list, a)
	}
	if v, ok := c.Get("ssi.swap"); ok {
		config = append(config, strings.Split(v, ",")...)
	}
	for _, spec := range config {
		if spec != "" {
			list = append(list, swapArea{spec: spec})
		}
	}
	return list, errors.Join(errs...)
}

func (b *boot) swapOn(ctx context.Context, say func(string)) (string, error) {
	areas, err := swapAreas(b.fstab, b.o.Swap, b.cmdline)
	errs := []error{err}
	n := 0
	for _, a := range areas {
		path := a.spec
		if info, serr := os.Stat(path); serr != nil || !info.Mode().IsRegular() {
			path, err = b.device(ctx, a.spec, say)
		}
		if err == nil {
			err = sys.Swapon(path, a.flags)
		}
		switch {
		case err == nil:
			n++
		case errors.Is(err, unix.EBUSY): // it is in use already
		case a.lax:
		default:
			errs = append(errs, fmt.Errorf("swap on %s: %w", a.spec, err))
		}
		err = nil
	}
	return fmt.Sprintf("%d areas", n), errors.Join(errs...)
}

// swapsInUse reads proc_swaps(5).
func swapsInUse(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 5 && strings.HasPrefix(f[0], "/") {
			list = append(list, unescape(f[0]))
		}
	}
	return list
}
