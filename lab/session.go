package lab

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
)

// A session runs a command in a node. After the upgrade of methodExec, the client
// sends one byte, with its stdin, stdout and stderr unless it asks for a
// terminal. The supervisor starts the command and answers sessionStart, with a
// byte that carries the terminal's master if one was asked for. Then the client
// may send sessionSignal, and the supervisor ends with sessionEnd. When the
// client goes away, the command is hung up, and killed after hangupGrace.

const hangupGrace = 2 * time.Second

// fdConn is what both sides need of an upgraded connection: descriptors go over
// it. It holds no bytes back, since each side waits for the other before.
type fdConn interface {
	net.Conn
	ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
	WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
}

type sessionSignal struct {
	Signal int `json:"signal"`
}

type sessionEnd struct {
	Code   int    `json:"code"`             // exit status, or 128 + signal
	Signal int    `json:"signal,omitempty"` // that ended it
	Error  string `json:"error,omitempty"`  // why it did not start (126, 127) or ended early (255)
}

func sendFiles(c fdConn, files ...*os.File) error {
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	_, _, err := c.WriteMsgUnix([]byte{'f'}, oob, nil)
	return err
}

// receiveFiles reads one byte with exactly want descriptors.
func receiveFiles(c fdConn, want int) ([]*os.File, error) {
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	if len(files) != want {
		closeAll(files)
		return nil, errno.New(errno.Invalid, "exec", 0, "%d descriptors came, %d are needed", len(files), want)
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
