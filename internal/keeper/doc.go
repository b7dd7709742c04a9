// Package keeper is the connection between PID 1 and the other roles: the
// messages, and the roles' side of it.
//
// PID 1 keeps file descriptors under names, so that listening sockets outlive
// a crash of the node role, and the gate's listeners that of spawn, too. To the
// node role alone it reports every process it reaped, and that another role left
// a file; and it ends the machine in order when the node role or the role boot
// asks. The connection is one end of a socketpair
// (SOCK_SEQPACKET) that PID 1 makes anew for each start of a role and
// passes as the descriptor that FDEnv names, so a message can never come from a
// stranger, and the end of either side is seen by the other.
//
// Client has one goroutine, which reads; Close waits for it. Lock: Client.mu,
// held during one request and its answer (at most requestTime).
//
// Limits: MaxFiles kept files, names of MaxName bytes, one request at a time.
// PID 1 holds reports of the last MaxExits ended processes for a node role that
// is away; it must never wait for this side.
package keeper

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

const (
	// FDEnv names the variable with the descriptor of the connection.
	FDEnv = "SSI_KEEPER_FD"
	// CgroupEnv names the variable with the directory of the cgroup that the
	// spawn role enters and so all it creates; it is empty if there is none.
	CgroupEnv = "SSI_CGROUP"
	// SpawnSocket is the name, in the run directory, of the socket that PID 1
	// listens on for the spawn role.
	SpawnSocket = "spawn.sock"

	// MaxFiles is how many files are kept.
	MaxFiles = 64
	// MaxName is how many bytes the name of one has.
	MaxName = 100
	// MaxExits is how many reports are kept while the node role is away.
	MaxExits = 4096
	// MaxPacket is above the size of every message.
	MaxPacket = 256
)

// Op is what a role asks of PID 1: the first byte of a request.
type Op byte

// The requests. Those about files, which every role may make, are followed by a
// name.
const (
	OpPut     Op = 'P' // keep the file that comes with it
	OpTake    Op = 'T' // the answer brings the file
	OpNext    Op = 'N' // the answer brings the first kept name after this one, in the order of bytes
	OpDrop    Op = 'D'
	OpEnd     Op = 'E' // followed by an Ending; of the roles node and boot
	OpRespawn Op = 'S' // kill the spawn role, which then starts anew; of the node role
	OpReady   Op = 'U' // the node serves: what leaves it the processor until then may start; of the node role

	OpSwitchRoot Op = 'R' // followed by the path of the init in the new root; of the role boot
	OpWatchdog   Op = 'W' // followed by seconds, 4 bytes; of the role boot
)

// Result is the second byte of an answer.
type Result byte

// The results.
const (
	Done Result = iota
	NotKept
	TooMany
	BadRequest
)

// Err is the error of a result.
func (r Result) Err() error {
	switch r {
	case Done:
		return nil
	case NotKept:
		return fs.ErrNotExist
	case TooMany:
		return errors.New("PID 1 keeps as many files as it may")
	default:
		return errors.New("PID 1 does not understand the request; is it of another version?")
	}
}

// The first bytes of what PID 1 sends.
const (
	tagAnswer = 'a'
	tagExit   = 'x'
	tagKept   = 'k'
)

// Ending says what becomes of the machine.
type Ending byte

// The endings.
const (
	Halt Ending = iota + 1
	PowerOff
	Reboot
	Kexec // into the kernel that was loaded; a reboot if none was
)

// String is the ending in words.
func (e Ending) String() string {
	switch e {
	case Halt:
		return "halt"
	case PowerOff:
		return "power off"
	case Reboot:
		return "reboot"
	case Kexec:
		return "kexec"
	}
	return "unknown ending"
}

// Answer encodes an answer.
func Answer(r Result) []byte { return []byte{tagAnswer, byte(r)} }

// Kept encodes the message that a role other than node left a file.
func Kept() []byte { return []byte{tagKept} }

const exitLen = 1 + 4 + 4 + 3*8

// AppendExit appends the report of an ended process to b.
func AppendExit(b []byte, e proc.Exit) []byte {
	b = append(b, tagExit)
	b = binary.BigEndian.AppendUint32(b, uint32(e.PID))
	b = binary.BigEndian.AppendUint32(b, uint32(e.Status))
	b = binary.BigEndian.AppendUint64(b, uint64(e.UserTime))
	b = binary.BigEndian.AppendUint64(b, uint64(e.SystemTime))
	return binary.BigEndian.AppendUint64(b, uint64(e.MaxRSS))
}

func decodeExit(b []byte) proc.Exit {
	return proc.Exit{
		PID:        int32(binary.BigEndian.Uint32(b[1:])),
		Status:     unix.WaitStatus(binary.BigEndian.Uint32(b[5:])),
		UserTime:   int64(binary.BigEndian.Uint64(b[9:])),
		SystemTime: int64(binary.BigEndian.Uint64(b[17:])),
		MaxRSS:     int64(binary.BigEndian.Uint64(b[25:])),
	}
}

// Receive reads one packet into buf, with the files that came with it.
func Receive(c *net.UnixConn, buf []byte) (n int, files []*os.File, err error) {
	var oob [64]byte // room for more files than any message has, so that the rest is closed by us and not lost
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob[:])
	if err != nil {
		return 0, nil, err
	}
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return 0, nil, err
		}
		for i := range msgs {
			fds, err := unix.ParseUnixRights(&msgs[i])
			if err != nil {
				continue
			}
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "kept"))
			}
		}
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		CloseAll(files)
		return 0, nil, errors.New("packet is longer than any message")
	}
	return n, files, nil
}

// CloseAll closes files.
func CloseAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
