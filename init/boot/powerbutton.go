package boot

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
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/config"
	"ssi/internal/keeper"
	"ssi/internal/sys"
)

const (
	// maxButtons is how many input devices with a power key are watched.
	maxButtons = 32
	// maxKeysFile is above the size of a file capabilities/key, in bytes.
	maxKeysFile = 4096
	// buttonRetry is when devices are looked for again after that failed.
	buttonRetry = time.Minute
)

// powerButton is what pressing it does: ssi.power_button= of the kernel command line,
// or what the configuration says, also if the former is wrong; 0 is nothing.
func powerButton(c CommandLine, configured string) (e keeper.Ending, err error) {
	what, ok := c.Get("ssi.power_button")
	if ok {
		if err = config.CheckPowerButton(what); err != nil {
			err = fmt.Errorf("ssi.power_button= of the kernel command line: %w; it does %s", err, configured)
		}
	}
	if !ok || err != nil {
		what = configured
	}
	switch what {
	case config.ButtonPowerOff:
		e = keeper.PowerOff
	case config.ButtonReboot:
		e = keeper.Reboot
	}
	return e, err
}

// watchButtons ends the machine as the kernel command line or the configuration says
// when its power button is pressed, until ctx ends.
func watchButtons(ctx context.Context, log *slog.Logger, configured string) {
	text, err := readLimited("/proc/cmdline", MaxCommandLine)
	if err != nil {
		log.Warn("kernel command line", "op", "power button", "err", err)
	}
	e, err := powerButton(ParseCommandLine(text), configured)
	if err != nil {
		log.Warn("power button", "op", "power button", "err", err)
	}
	if e == 0 {
		return
	}
	b := buttons{dev: "/dev", sys: "/sys", log: log, what: e, end: func(e keeper.Ending) error { return EndMachine(e, false) }}
	b.run(ctx)
}

// buttons watches the power keys of a machine: the input devices that have one, and
// those that appear later, with their drivers. Only the goroutine of run uses devices.
type buttons struct {
	dev, sys string // "/dev", "/sys"
	log      *slog.Logger
	what     keeper.Ending               // that follows a press
	end      func(e keeper.Ending) error // asks for it; does not wait for it

	mu      sync.Mutex // held while end is called
	pressed bool       // the machine ends: pressing again is the same as once

	devices map[string]button // by their name: event0
	full    bool              // that there are more devices was said
	readers sync.WaitGroup
}

// button is a device that was found. The file of one that failed is closed already;
// it is not tried again before its node in /dev is another one.
type button struct {
	node uint64 // the inode number of that
	file *os.File
}

// run watches until ctx ends.
func (b *buttons) run(ctx context.Context) {
	for {
		err := b.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		b.log.Warn("the power button does not work", "op", "power button", "again_in", buttonRetry, "err", err)
		select {
		case <-time.After(buttonRetry):
		case <-ctx.Done():
			return
		}
	}
}

// watch looks for devices each time something appears in the directory of input
// devices, which appears with the first of them, see devtmpfs in the kernel.
func (b *buttons) watch(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer func() {
		if stop() {
			_ = f.Close()
		}
		b.close()
	}()
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	events := make([]byte, 4096)
	for {
		if err := b.notify(raw.Control); err != nil {
			return err
		}
		b.look()
		// What it says does not matter, and neither that some of it was lost.
		if _, err := f.Read(events); err != nil {
			return fmt.Errorf("inotify: %w", err)
		}
	}
}

// notify asks for news of the directories; asking again for the same one changes nothing.
func (b *buttons) notify(control func(func(fd uintptr)) error) error {
	var errs [2]error
	err := control(func(fd uintptr) {
		for i, dir := range []string{b.dev, filepath.Join(b.dev, "input")} {
			_, errs[i] = unix.InotifyAddWatch(int(fd), dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR)
		}
	})
	if errors.Is(errs[1], unix.ENOENT) {
		errs[1] = nil
	}
	if err := errors.Join(err, errs[0], errs[1]); err != nil {
		return fmt.Errorf("inotify of %s: %w", b.dev, err)
	}
	return nil
}

// look opens the devices that are new, and lets go those that are not there any more.
func (b *buttons) look() {
	entries, err := os.ReadDir(filepath.Join(b.dev, "input"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Warn("input devices", "op", "power button", "err", err)
	}
	there := map[string]uint64{}
	for _, e := range entries {
		var st unix.Stat_t
		if strings.HasPrefix(e.Name(), "event") && unix.Lstat(b.path(e.Name()), &st) == nil {
			there[e.Name()] = st.Ino
		}
	}
	for name, d := range b.devices {
		if there[name] != d.node {
			_ = d.file.Close()
			delete(b.devices, name)
		}
	}
	for _, e := range entries {
		name := e.Name()
		node, is := there[name]
		if _, known := b.devices[name]; !is || known || !b.powers(name) {
			continue
		}
		if len(b.devices) >= maxButtons {
			if !b.full {
				b.log.Warn("this machine has more power buttons than are watched", "op", "power button", "watched", maxButtons)
			}
			b.full = true
			return
		}
		b.open(name, node)
	}
}

func (b *buttons) path(name string) string { return filepath.Join(b.dev, "input", name) }

// powers reports whether a device has a power key.
func (b *buttons) powers(name string) bool {
	keys, err := readLimited(filepath.Join(b.sys, "class/input", name, "device/capabilities/key"), maxKeysFile)
	has := false
	if err == nil {
		has, err = hasPowerKey(keys)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // else it went away meanwhile
		b.log.Info("an input device is passed over", "op", "power button", "device", b.path(name), "err", err)
	}
	return has
}

// open starts reading from a device.
func (b *buttons) open(name string, node uint64) {
	f, err := os.OpenFile(b.path(name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY, 0)
	if err != nil {
		b.log.Warn("a power button does not work", "op", "power button", "err", err)
		return // tried again with the next news
	}
	if b.devices == nil {
		b.devices = map[string]button{}
	}
	b.devices[name] = button{node, f}
	// What is typed on a keyboard is not for us, and wakes nobody. A kernel that cannot
	// do that gives more, which is passed over.
	types, keys := powerMask()
	_ = errors.Join(sys.InputMask(f, evSyn, types), sys.InputMask(f, evKey, keys))
	label, _ := readLimited(filepath.Join(b.sys, "class/input", name, "device/name"), maxKeysFile)
	b.log.Info("power button", "op", "power button", "device", f.Name(), "name", cut(strings.TrimSpace(label)))
	b.readers.Go(func() {
		defer func() { _ = f.Close() }()
		if err := b.read(f); !errors.Is(err, os.ErrClosed) && !errors.Is(err, unix.ENODEV) { // else it went away
			b.log.Warn("a power button does not work any more", "op", "power button", "device", f.Name(), "err", err)
		}
	})
}

// read acts on presses until the device fails.
func (b *buttons) read(f *os.File) error {
	events := make([]byte, 64*inputEventSize)
	for {
		n, err := f.Read(events)
		if err != nil {
			return err
		}
		pressed, err := powerPressed(events[:n])
		if err != nil {
			return err
		}
		if pressed {
			b.press(f.Name())
		}
	}
}

// press ends the machine, once.
func (b *buttons) press(device string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pressed {
		return
	}
	b.log.Warn("the power button was pressed: this machine ends", "op", b.what.String(), "device", device)
	err := b.end(b.what)
	if err != nil {
		b.log.Error("the power button does not work", "op", "power button", "err", err)
	}
	b.pressed = err == nil
}

// close lets all devices go, and waits for their readers.
func (b *buttons) close() {
	for _, d := range b.devices {
		_ = d.file.Close()
	}
	b.devices = nil
	b.readers.Wait()
}
