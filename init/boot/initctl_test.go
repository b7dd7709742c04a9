package boot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
)

// request is a struct init_request.
func request(cmd, runlevel uint32, data string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, initMagic)
	b = binary.NativeEndian.AppendUint32(b, cmd)
	b = binary.NativeEndian.AppendUint32(b, runlevel)
	return append(binary.NativeEndian.AppendUint32(b, 0), append([]byte(data), make([]byte, 368-len(data))...)...)
}

// The runlevels as shutdown(8) and telinit(8) send them.
func TestInitRequests(t *testing.T) {
	var i initctl
	for _, c := range []struct {
		request []byte
		end     keeper.Ending
		err     string
	}{
		{request(1, '6', ""), keeper.Reboot, ""},
		{request(1, '0', ""), keeper.PowerOff, ""},
		{request(6, 0, "INIT_HALT=HALT"), 0, ""},
		{request(1, '0', ""), keeper.Halt, ""},
		{request(1, '6', ""), keeper.Reboot, ""},
		{request(6, 0, "INIT_HALT=POWEROFF"), 0, ""},
		{request(1, '0', ""), keeper.PowerOff, ""},
		{request(6, 0, "INIT_HALT=HALT"), 0, ""},
		{request(7, 0, "INIT_HALT"), 0, ""},
		{request(1, '0', ""), keeper.PowerOff, ""},
		{request(6, 0, "PATH=/evil"), 0, ""},
		{request(1, 'U', ""), 0, ""},
		{request(1, '3', ""), 0, ""},
		{request(1, 'S', ""), 0, "there is no runlevel 'S'"},
		{request(1, 6, ""), 0, "there is no runlevel"},
		{request(1, '6'|'6'<<8, ""), 0, "there is no runlevel"},
		{request(2, 0, ""), 0, "the power has failed"},
		{request(3, 0, ""), keeper.PowerOff, ""},
		{request(4, 0, ""), 0, "the power is back"},
		{request(12345, 0, "/dev/evil"), 0, "there is no command 12345"},
	} {
		r, err := parseInitRequest(c.request)
		if err != nil {
			t.Fatal(err)
		}
		end, err := i.serve(r)
		if end != c.end || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %v, %v; want %v, %q", bytes.TrimRight(c.request, "\x00"), end, err, c.end, c.err)
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, 384), request(1, '6', "")[:383], append(request(1, '6', ""), 0)} {
		if _, err := parseInitRequest(bad); err == nil {
			t.Errorf("%d bytes were taken", len(bad))
		}
	}
}

// lockedBuffer is a log that two goroutines use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The FIFO is root's alone, and garbage in it loses no request that follows.
func TestInitctl(t *testing.T) {
	path := filepath.Join(t.TempDir(), "initctl")
	put(t, path, "a file in its place", 0o666)
	var log lockedBuffer
	ends := make(chan keeper.Ending)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serveInitctl(ctx, slog.New(slog.NewTextHandler(&log, nil)), path, func(e keeper.Ending) error {
			ends <- e
			return errors.New("refused")
		})
	}()
	deadline := time.Now().Add(10 * time.Second)
	var f *os.File
	for f == nil {
		// As systemctl(1) opens it: ENXIO if nobody reads.
		info, err := os.Lstat(path)
		if err == nil && info.Mode() == os.ModeNamedPipe|0o600 {
			f, err = os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
		}
		if f == nil && time.Now().After(deadline) {
			t.Fatal(info, err)
		}
	}
	defer f.Close()
	send := func(b []byte) {
		t.Helper()
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	said := func(text string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(log.String(), text); {
			if time.Now().After(deadline) {
				t.Fatalf("it never says %q: %s", text, log.String())
			}
			<-time.After(time.Millisecond)
		}
	}
	wants := func(want keeper.Ending) {
		t.Helper()
		select {
		case e := <-ends:
			if e != want {
				t.Errorf("%v, want %v", e, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no %v: %s", want, log.String())
		}
	}
	send(request(1, '6', ""))
	wants(keeper.Reboot)
	said("refused")
	send([]byte("reboot\n"))
	said("a request of 7 bytes, not 384\" dropped=7\n")
	send(append(bytes.Repeat([]byte("x"), 4000), request(1, '0', "")...)) // damaged: all of it goes
	said("dropped=4384\n")
	send(append(request(6, 0, "INIT_HALT=HALT"), request(1, '0', "")...))
	wants(keeper.Halt)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzInitRequest(f *testing.F) {
	f.Add(request(1, '6', ""))
	f.Add(request(6, 0, "INIT_HALT=HALT"))
	f.Add([]byte("reboot"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseInitRequest(b)
		if err != nil {
			return
		}
		var i initctl
		end, err := i.serve(r)
		if end != 0 && (err != nil || r.cmd != initRunlevel && r.cmd != initPowerFailNow) {
			t.Errorf("%+v: %v, %v", r, end, err)
		}
		if i.halt && (end != 0 || r.cmd != initSetenv) {
			t.Errorf("%+v: it will halt", r)
		}
	})
}
