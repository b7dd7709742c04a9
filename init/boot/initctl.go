package boot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
	"ssi/internal/sys"
)

// initFIFO is the path of the FIFO of sysvinit(8), and initLink its former one.
const (
	initFIFO = "/run/initctl"
	initLink = "/dev/initctl"
)

// initRequestSize is the size of struct init_request in initreq.h of sysvinit: four
// numbers in the byte order of the machine, and 368 bytes of data.
const initRequestSize = 384

// initMagic begins every request: INIT_MAGIC of initreq.h.
const initMagic = 0x03091969

// The commands of a request.
const (
	initRunlevel     = 1 // INIT_CMD_RUNLVL
	initPowerFail    = 2 // INIT_CMD_POWERFAIL
	initPowerFailNow = 3 // INIT_CMD_POWERFAILNOW
	initPowerOK      = 4 // INIT_CMD_POWEROK
	initSetenv       = 6 // INIT_CMD_SETENV
	initUnsetenv     = 7 // INIT_CMD_UNSETENV
)

// initRequest is a request of telinit(8) or shutdown(8).
type initRequest struct {
	cmd, runlevel uint32
	data          string // up to its first NUL
}

// parseInitRequest reads what a read of the FIFO gave.
func parseInitRequest(b []byte) (initRequest, error) {
	if len(b) != initRequestSize {
		return initRequest{}, fmt.Errorf("a request of %d bytes, not %d", len(b), initRequestSize)
	}
	if magic := binary.NativeEndian.Uint32(b); magic != initMagic {
		return initRequest{}, fmt.Errorf("a request that begins with %#08x, not %#08x", magic, initMagic)
	}
	data, _, _ := bytes.Cut(b[16:], []byte{0})
	return initRequest{binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:]), string(data)}, nil
}

// initctl is what the requests so far have said.
type initctl struct {
	halt bool // runlevel 0 leaves the machine on: INIT_HALT=HALT of shutdown(8)
}

// serve decides what to do: end the machine, if end is not 0; say what cannot be
// done. Runlevels other than 0 and 6 mean nothing here: they are those of scripts that
// this init does not run.
func (i *initctl) serve(r initRequest) (end keeper.Ending, err error) {
	switch r.cmd {
	case initRunlevel:
		switch r.runlevel {
		case '6':
			return keeper.Reboot, nil
		case '0':
			if i.halt {
				return keeper.Halt, nil
			}
			return keeper.PowerOff, nil
		case 'q', 'Q', 'u', 'U', '2', '3', '4', '5': // read inittab(5) again; execute init anew, as the C library's package asks; stay
			return 0, nil
		}
		return 0, fmt.Errorf("there is no runlevel %q; 0 switches the machine off, 6 starts it anew", rune(r.runlevel&0xff))
	case initPowerFailNow:
		return keeper.PowerOff, nil
	case initPowerFail:
		return 0, errors.New("the power has failed; the machine goes on until the battery is low")
	case initPowerOK:
		return 0, errors.New("the power is back")
	case initSetenv:
		if value, ok := strings.CutPrefix(r.data, "INIT_HALT="); ok {
			i.halt = value == "HALT"
		}
		return 0, nil
	case initUnsetenv:
		if r.data == "INIT_HALT" {
			i.halt = false
		}
		return 0, nil
	}
	return 0, fmt.Errorf("there is no command %d", r.cmd)
}

// RunInitctl is the role initctl: it takes requests to the init of System V from
// /run/initctl, by which shutdown(8), reboot(8) and telinit(8) of systemd and of
// sysvinit end a machine whose init is not systemd; and it watches the power button,
// which does what powerButton says: config.ButtonPowerOff, ButtonReboot or
// ButtonIgnore, unless the kernel command line says something else. It returns the exit
// status.
func RunInitctl(log *slog.Logger, powerButton string) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer stop()
	watch.Go(func() { watchButtons(ctx, log, powerButton) })
	// Programs that know only the former path find it there.
	if err := os.Symlink(initFIFO, initLink); err != nil && !errors.Is(err, os.ErrExist) {
		log.Warn("initctl", "op", "link", "err", err)
	}
	sys.ReleaseText() // most of what the start of the program touched is never used again
	err := serveInitctl(ctx, log, initFIFO, func(e keeper.Ending) error { return EndMachine(e, false) })
	if err != nil {
		log.Error("shutdown(8) and reboot(8) of the distribution do not work", "op", "initctl", "err", err)
		return 1
	}
	return 0
}

// serveInitctl serves the FIFO at path, which it makes, until ctx ends. Only root may
// write to it.
func serveInitctl(ctx context.Context, log *slog.Logger, path string, end func(keeper.Ending) error) error {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeNamedPipe {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	// For writing, too: so there is always a writer, and never an end of file.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer func() {
		if stop() {
			_ = f.Close()
		}
	}()
	var state initctl
	buf := make([]byte, 10*initRequestSize)
	for {
		// A request is written at once, being shorter than PIPE_BUF; see pipe(7).
		n, err := f.Read(buf[:initRequestSize])
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		r, err := parseInitRequest(buf[:n])
		if err != nil { // what follows may be its rest
			dropped, derr := drain(f, buf)
			log.Warn("initctl", "op", "read", "err", err, "dropped", n+dropped)
			if derr != nil {
				return fmt.Errorf("read %s: %w", path, derr)
			}
			continue
		}
		e, err := state.serve(r)
		if e != 0 {
			log.Warn("this machine ends", "op", e.String(), "by", path)
			err = end(e)
		}
		if err != nil {
			log.Warn("initctl", "op", "serve", "err", err)
		}
	}
}

// drain takes what is in a FIFO that does not block, and tells how many bytes: at
// most what fits into one by pipe(7), so that it ends beside a writer that does not.
func drain(f *os.File, buf []byte) (dropped int, err error) {
	const capacity = 1 << 16
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	rerr := raw.Read(func(fd uintptr) bool {
		for dropped < capacity {
			n, e := unix.Read(int(fd), buf)
			switch {
			case e == unix.EINTR:
				continue
			case e == unix.EAGAIN:
				return true
			case e != nil || n == 0:
				err = e
				return true
			}
			dropped += n
		}
		return true
	})
	if errors.Is(rerr, os.ErrClosed) || errors.Is(err, io.EOF) {
		rerr = nil
	}
	return dropped, errors.Join(err, rerr)
}
