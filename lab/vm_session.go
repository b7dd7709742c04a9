package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/pty"
	"ssi/internal/vm"
)

const (
	pollTime  = 100 * time.Millisecond // how soon the end of a session is noticed
	pieceMax  = 4096                   // PIPE_BUF: what a pipe that is ready takes at once
	keyIntr   = 0x03                   // ^C
	keyQuit   = 0x1c                   // ^\
	dumbShell = "export TERM=dumb; "   // cursor movements do not get through
)

// handleExec serves methodExec: the command runs in the shell on the console of
// the machine. It reads nothing unless it has a terminal, its standard output and
// error are one, and environment and directory are those of that shell.
func (v *vmNodes) handleExec(_ context.Context, c *api.Call) error {
	var p execParams
	if err := c.Params(&p); err != nil {
		return err
	}
	if len(p.Args) == 0 {
		return errno.New(errno.Invalid, "exec", p.Node, "no command")
	}
	g, err := v.guest("exec", p.Node)
	if err != nil {
		return err
	}
	if state := v.stateOf(g); state != On {
		return errno.New(errno.Unavailable, "exec", p.Node, "it is %s", state)
	}
	release, err := g.shell.hold(v.s.ctx)
	if err != nil {
		return err
	}
	defer release()
	up, err := c.Upgrade(struct{}{})
	if err != nil {
		return err
	}
	conn, ok := up.(fdConn)
	if !ok {
		return errno.New(errno.Other, "exec", p.Node, "this connection passes no descriptors")
	}
	end := v.session(conn, g, &p)
	_ = conn.SetWriteDeadline(time.Now().Add(api.WriteTimeout))
	return json.NewEncoder(conn).Encode(end)
}

// session runs the command and returns how it ended.
func (v *vmNodes) session(conn fdConn, g *guest, p *execParams) sessionEnd {
	failed := func(err error) sessionEnd {
		if errors.Is(err, vm.ErrOff) {
			err = fmt.Errorf("node %d went off: %w", g.n, err)
		}
		return sessionEnd{Code: 255, Error: err.Error()}
	}
	want := 3
	if p.TTY {
		want = 0
	}
	files, err := receiveFiles(conn, want)
	if err != nil {
		return failed(err)
	}
	defer func() { closeAll(files) }()
	command := commandLine(p.Args)
	if !p.TTY {
		if err := sendFiles(conn); err != nil {
			return failed(err)
		}
		return v.converse(conn, g, command, nil, files[1], failed)
	}
	master, slave, err := openTerminal(p.Rows, p.Cols)
	if err != nil {
		_ = sendFiles(conn)
		return failed(err)
	}
	files = []*os.File{slave}
	err = rawInput(slave)
	if err == nil {
		err = sendFiles(conn, master)
	}
	_ = master.Close()
	if err != nil {
		return failed(err)
	}
	command = fmt.Sprintf("%sbusybox stty rows %d cols %d 2>/dev/null; %s", dumbShell, p.Rows, p.Cols, command)
	return v.converse(conn, g, command, slave, slave, failed)
}

// rawInput passes keys on as they are; lines that are shown still end with CR LF.
func rawInput(slave *os.File) error {
	modes, err := pty.Modes(slave)
	if err != nil {
		return err
	}
	raw := *modes
	raw.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Iflag &^= unix.ICRNL | unix.INLCR | unix.IGNCR | unix.IXON
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	return pty.SetModes(slave, &raw)
}

// converse runs a command with what is typed in keys, if that is not nil.
func (v *vmNodes) converse(conn fdConn, g *guest, command string, keys, out *os.File, failed func(error) sessionEnd) sessionEnd {
	ctx, cancel := context.WithCancel(v.s.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { g.hear(ctx, conn, keys != nil) })
	if keys != nil {
		wg.Go(func() { g.keys(ctx, keys) })
	}
	status, err := g.shell.run(v.s.ctx, command, keys != nil, func(b []byte) error { return writeOut(v.s.ctx, out, b) })
	cancel()
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	wg.Wait()
	if err != nil {
		return failed(err)
	}
	return sessionEnd{Code: status}
}

// hear types the key of a signal that the client got; when the client goes away,
// it interrupts the command.
func (g *guest) hear(ctx context.Context, conn io.Reader, tty bool) {
	dec := json.NewDecoder(conn)
	for {
		var msg sessionSignal
		if dec.Decode(&msg) != nil {
			break
		}
		switch unix.Signal(msg.Signal) {
		case unix.SIGQUIT:
			_ = g.m.Type([]byte{keyQuit}) // a machine that is off needs none
		case unix.SIGINT, unix.SIGTERM, unix.SIGHUP:
			_ = g.m.Type([]byte{keyIntr})
		}
	}
	if ctx.Err() == nil {
		_ = g.m.Type([]byte{keyIntr})
	}
	if !tty {
		return
	}
	// A shell is not ended by that.
	select {
	case <-ctx.Done():
	case <-time.After(hangupGrace):
		_ = g.m.Type([]byte("\rexit\r"))
	}
}

// keys types what the client types.
func (g *guest) keys(ctx context.Context, from *os.File) {
	b := make([]byte, 256)
	for ctx.Err() == nil {
		ready, err := readyFor(from, unix.POLLIN)
		if err != nil {
			return
		}
		if !ready {
			continue
		}
		n, err := from.Read(b)
		if err != nil || g.m.Type(b[:n]) != nil {
			return
		}
	}
}

// writeOut writes to a file of the client, which may never take it. The file's
// mode is the client's, so it is asked before each piece.
func writeOut(ctx context.Context, to *os.File, b []byte) error {
	for len(b) > 0 {
		ready, err := readyFor(to, unix.POLLOUT)
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !ready:
			continue
		}
		n, err := to.Write(b[:min(len(b), pieceMax)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// readyFor waits a little until a file is ready.
func readyFor(f *os.File, events int16) (ready bool, err error) {
	fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: events}}
	n, err := unix.Poll(fds, int(pollTime.Milliseconds()))
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err == nil && fds[0].Revents&(unix.POLLNVAL|unix.POLLERR) != 0 {
		err = io.ErrClosedPipe
	}
	return n > 0, err
}
