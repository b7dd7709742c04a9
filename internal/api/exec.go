package api

import "ssi/internal/id"

// ExecRun is the method that runs a command on a node. It is called with
// "upgrade"; after an ExecReply the connection carries the frames of
// vproc/rexec. Every user may call it: the command runs with the user and group
// IDs, groups, nice value and resource limits that the kernel tells of the caller.
const ExecRun = "ssi.exec.Run"

// ExecRequest is the parameters of ExecRun. Strings are carried as bytes, each
// ended by a NUL, because arguments and paths need not be UTF-8.
type ExecRequest struct {
	Node  id.Node `json:"node"`            // where; 0 is the caller's own node
	Argv  []byte  `json:"argv"`            // at least one string
	Path  []byte  `json:"path,omitempty"`  // the file to execute, with a slash; absent: found by the first of Argv
	Env   []byte  `json:"env,omitempty"`   // NAME=value strings
	Dir   []byte  `json:"dir"`             // absolute path, without a NUL
	Umask uint16  `json:"umask"`           // 0 to 0o777
	Term  *Term   `json:"term,omitempty"`  // present if the command shall have a terminal
	Files uint8   `json:"files,omitempty"` // bit 0: no stdin; bit 1: stderr separate from the terminal; bit 2: the caller is in the background of its terminal; bit 3: the command shall have the caller's PID
}

// ExecReply is the answer to ExecRun, before the frames.
type ExecReply struct {
	// Here tells that the caller had better become the command itself: it is of the
	// process space of the node that is meant, and asked for its own PID. No frames
	// follow.
	Here bool `json:"here,omitempty"`
	// Node is this node, for the environment of the command.
	Node id.Node `json:"node,omitempty"`
}

// Term is the caller's terminal: the command's starts with the same modes and
// size.
type Term struct {
	Iflag uint32 `json:"iflag"` // c_iflag and so on of termios(3)
	Oflag uint32 `json:"oflag"`
	Cflag uint32 `json:"cflag"`
	Lflag uint32 `json:"lflag"`
	Cc    []byte `json:"cc"`
	Rows  uint16 `json:"rows"`
	Cols  uint16 `json:"cols"`
}
