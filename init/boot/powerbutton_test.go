package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/config"
	"ssi/internal/keeper"
)

const powerKeys = "10000000000000 0\n"

// desk is a machine whose input devices are FIFOs.
type desk struct {
	t       *testing.T
	b       *buttons
	log     *lockedBuffer
	ends    chan struct{}
	refuse  atomic.Bool
	stop    context.CancelFunc
	stopped chan struct{}
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, log: &lockedBuffer{}, ends: make(chan struct{}, 100), stopped: make(chan struct{})}
	dir := t.TempDir()
	d.b = &buttons{
		dev: filepath.Join(dir, "dev"), sys: filepath.Join(dir, "sys"), log: slog.New(slog.NewTextHandler(d.log, nil)),
		what: keeper.PowerOff,
		end: func(e keeper.Ending) error {
			if e != keeper.PowerOff {
				t.Errorf("it asks for %s", e)
			}
			d.ends <- struct{}{}
			if d.refuse.Load() {
				return errors.New("refused")
			}
			return nil
		},
	}
	if err := os.Mkdir(d.b.dev, 0o755); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) watch() {
	ctx, stop := context.WithCancel(d.t.Context())
	d.stop = stop
	go func() {
		d.b.run(ctx)
		close(d.stopped)
	}()
	d.t.Cleanup(d.unwatch)
}

func (d *desk) unwatch() {
	d.stop()
	<-d.stopped
}

// add makes a device and returns its other end.
func (d *desk) add(name, keys string) *os.File {
	d.t.Helper()
	put(d.t, filepath.Join(d.b.sys, "class/input", name, "device/capabilities/key"), keys, 0o644)
	put(d.t, filepath.Join(d.b.sys, "class/input", name, "device/name"), "Button of "+name+"\x1b\n", 0o644)
	path := d.b.path(name)
	made := filepath.Join(d.b.dev, "new") // with a writer before it can be found
	err := unix.Mkfifo(made, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	f, err := os.OpenFile(made, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = f.Close() })
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Link(made, path), os.Remove(made)); err != nil {
		d.t.Fatal(err)
	}
	return f
}

func (d *desk) send(f *os.File, b []byte) {
	d.t.Helper()
	if _, err := f.Write(b); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) press(f *os.File) {
	d.t.Helper()
	d.send(f, inputEvents(inputEvent(1, 116, 1), inputEvent(0, 0, 0)))
}

// says waits until the log has so many lines with a text.
func (d *desk) says(text string, lines int) {
	d.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); strings.Count(d.log.String(), text) < lines; {
		if time.Now().After(deadline) {
			d.t.Fatalf("it never says %q: %s", text, d.log.String())
		}
		<-time.After(time.Millisecond)
	}
}

func (d *desk) ended() {
	d.t.Helper()
	select {
	case <-d.ends:
	case <-time.After(10 * time.Second):
		d.t.Fatalf("nothing came of a press: %s", d.log.String())
	}
}

// read waits until what was sent to a device was read.
func (d *desk) read(f *os.File) {
	d.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		n, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
		if err != nil || time.Now().After(deadline) {
			d.t.Fatalf("%d bytes are not read: %v", n, err)
		}
		if n == 0 {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// quiet is what is certain once the watch has ended.
func (d *desk) quiet() {
	d.t.Helper()
	d.unwatch()
	if n := len(d.ends); n > 0 {
		d.t.Errorf("%d presses too many: %s", n, d.log.String())
	}
}

// A button that is there at the start and one that comes later end the machine, once.
func TestPowerButton(t *testing.T) {
	d := newDesk(t)
	d.refuse.Store(true)
	keyboard := d.add("event0", "402000000 3803078f800d001 feefffdfffefffff fffffffffffffffe\n")
	first := d.add("event1", powerKeys)
	d.watch()
	d.says(`event1 name="Button of event1?"`, 1)
	d.press(keyboard) // it has no such key, so nobody listens
	d.send(first, inputEvent(1, 142, 1))
	d.press(first)
	d.ended()
	d.says("the power button does not work\" op=\"power button\" err=refused", 1)
	second := d.add("event2", powerKeys)
	d.says("device="+d.b.path("event2"), 1)
	d.refuse.Store(false)
	d.press(second)
	d.ended()
	for range 20 {
		d.press(second)
		d.press(first)
	}
	d.read(first)
	d.read(second)
	d.quiet()
	if n := strings.Count(d.log.String(), "the power button was pressed"); n != 2 {
		t.Errorf("%d presses are in the log: %s", n, d.log.String())
	}
}

// The directory of input devices appears with the first one, goes with the last, and
// appears again.
func TestPowerButtonComesLate(t *testing.T) {
	d := newDesk(t)
	d.watch()
	for i := range 3 {
		f := d.add("event0", powerKeys)
		d.says("device="+d.b.path("event0"), i+1)
		d.refuse.Store(true)
		d.press(f)
		d.ended()
		d.says("err=refused", i+1)
		if err := os.RemoveAll(filepath.Join(d.b.dev, "input")); err != nil {
			t.Fatal(err)
		}
	}
	d.quiet()
}

// What gives garbage, cannot be read, has damaged capabilities or is a link costs
// nothing; the button works, and another device under an old name does.
func TestPowerButtonBadDevices(t *testing.T) {
	d := newDesk(t)
	good, bad := d.add("event0", powerKeys), d.add("event1", powerKeys)
	d.add("event2", "not a number\n")
	d.add("event3", strings.Repeat("f", 2*maxKeysFile))
	d.add("mouse0", powerKeys)
	put(t, filepath.Join(d.b.sys, "class/input/event4/device/capabilities/key"), powerKeys, 0o644)
	put(t, filepath.Join(d.b.sys, "class/input/event5/device/capabilities/key"), powerKeys, 0o644)
	put(t, filepath.Join(d.b.sys, "class/input/event6/device/capabilities/key"), powerKeys, 0o644)
	put(t, d.b.path("event7"), "without capabilities", 0o644)
	put(t, d.b.path("event6"), "a file", 0o644)
	if err := errors.Join(os.Symlink(d.b.path("event0"), d.b.path("event4")), os.Mkdir(d.b.path("event5"), 0o755)); err != nil {
		t.Fatal(err)
	}
	d.watch()
	d.says("device="+d.b.path("event1"), 1)
	d.send(bad, []byte("garbage"))
	d.says("7 bytes are no input events", 1)
	for _, said := range []string{"event2 err=\"the keys of an input device", "event3 err=", "event4: too many levels of symbolic links", "event5: is a directory", "event6 err=\"6 bytes"} {
		d.says(said, 1)
	}
	if err := os.Remove(d.b.path("event1")); err != nil {
		t.Fatal(err)
	}
	again := d.add("event1", powerKeys)
	d.says(`device=`+d.b.path("event1")+` name=`, 2)
	d.refuse.Store(true)
	d.press(again)
	d.ended()
	d.press(good)
	d.ended()
	d.quiet()
	if strings.Contains(d.log.String(), "mouse0") {
		t.Error(d.log.String())
	}
}

// There is a limit to the devices.
func TestPowerButtonLimit(t *testing.T) {
	d := newDesk(t)
	d.refuse.Store(true)
	var all []*os.File
	for i := range maxButtons + 2 {
		all = append(all, d.add(fmt.Sprintf("event%02d", i), powerKeys))
	}
	d.watch()
	d.says("more power buttons than are watched", 1)
	d.press(all[maxButtons])
	d.press(all[maxButtons-1])
	d.ended()
	if err := os.Remove(d.b.path("event00")); err != nil { // there is room again
		t.Fatal(err)
	}
	d.says("device="+d.b.path(fmt.Sprintf("event%02d", maxButtons)), 1)
	d.ended() // what was pressed before it was opened is still in a FIFO
	d.quiet()
}

func TestPowerButtonSetting(t *testing.T) {
	for _, c := range []struct {
		cmdline, configured string
		want                keeper.Ending
		err                 string
	}{
		{"quiet", config.ButtonPowerOff, keeper.PowerOff, ""},
		{"quiet", config.ButtonReboot, keeper.Reboot, ""},
		{"quiet", config.ButtonIgnore, 0, ""},
		{"ssi.power_button=ignore", config.ButtonPowerOff, 0, ""},
		{"ssi.power-button=reboot", config.ButtonIgnore, keeper.Reboot, ""},
		{"ssi.power_button=", config.ButtonReboot, keeper.Reboot, "it may be: poweroff, reboot, ignore; it does reboot"},
		{"ssi.power_button=explode", config.ButtonIgnore, 0, `"explode" is nothing`},
	} {
		e, err := powerButton(ParseCommandLine(c.cmdline), c.configured)
		if e != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q, %q: %v, %v", c.cmdline, c.configured, e, err)
		}
	}
}
