// Package libcluster is the cluster's own system calls for programs in Go. Programs
// in C have them from cluster.h, under the names that libcluster gave them, and
// others by their numbers: Python by syscall(2) of its C library. What each call
// reads, writes and returns stands in vproc/remote (cluster.go).
//
// On a machine that is no node of a cluster all calls fail with ENOSYS; other
// errors are unix.Errno too. It has no state, no goroutines and no locks, and asks
// anew at each call. It must never look anywhere but at the system calls.
package libcluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"runtime"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
	"ssi/vproc/call"
)

// infoSize is what this version knows of ssi_info.
const infoSize = 104

// State is that of a node.
type State uint32

// Up is the state of a node that is there.
const Up State = 2

func (s State) String() string {
	names := [...]string{"NEVERUP", "COMINGUP", "UP", "SHUTDOWN", "GOINGDOWN", "KCLEANUP", "UCLEANUP", "DOWN"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint32(s))
}

// Info is what there is to know of the cluster.
type Info struct {
	Name     string
	Self     int    // the number of this node
	MaxNodes int    // the highest number of a node
	Up       int    // how many nodes are UP and run programs
	Init     int    // the init node; 0: none now
	Epoch    uint64 // the last transition of the membership
}

// Node is what there is to know of a node.
type Node struct {
	Name        string
	Node        int
	State       State
	Capable     bool   // it may become the init node
	Witness     bool   // it votes, and runs no programs
	Init        bool   // it is the init node
	Incarnation uint64 // another one for each time the node was started
	Since       uint64 // the transition into State
}

// GetInfo tells about the cluster.
func GetInfo() (Info, error) {
	b, err := ssiInfo(0)
	if err != nil {
		return Info{}, err
	}
	return infoOf(b), nil
}

func infoOf(b []byte) Info {
	return Info{
		Self: number(b[8:]), MaxNodes: number(b[12:]), Up: number(b[16:]), Init: number(b[20:]),
		Epoch: binary.NativeEndian.Uint64(b[24:]), Name: text(b[32:]),
	}
}

// GetNode tells about a node. EINVAL: no node can have that number; ENOENT: no
// node has had it.
func GetNode(n int) (Node, error) {
	if n == 0 {
		return Node{}, fmt.Errorf("ssi_info: node 0: %w", unix.EINVAL)
	}
	b, err := ssiInfo(n)
	if err != nil {
		return Node{}, err
	}
	return nodeOf(b), nil
}

func nodeOf(b []byte) Node {
	flags := binary.NativeEndian.Uint32(b[12:])
	return Node{
		Node: number(b[4:]), State: State(binary.NativeEndian.Uint32(b[8:])),
		Capable: flags&1 != 0, Witness: flags&2 != 0, Init: flags&4 != 0,
		Incarnation: binary.NativeEndian.Uint64(b[16:]), Since: binary.NativeEndian.Uint64(b[24:]), Name: text(b[32:]),
	}
}

// Self is the number of the node on which the caller runs.
func Self() (int, error) {
	n, err := do(call.ClusternodeNum, sys.Call{})
	return int(n), err
}

// Available tells whether a node is UP and runs programs. EINVAL: no node can have
// that number.
func Available(n int) (bool, error) {
	up, err := do(call.ClusternodeAvail, sys.Call{Args: [6]uint64{uint64(n)}})
	return up == 1, err
}

// Membership is the last transition and the nodes that are UP and run programs, in
// rising order.
func Membership() (epoch uint64, nodes []int, err error) {
	const most = 1024 // nodes, more than there can be
	head, list := make([]byte, 8), make([]byte, 4*most)
	n, err := do(call.ClusterMembership, sys.Call{Args: [6]uint64{1: most}, Mem: []sys.Memory{{Arg: 0, Data: head}, {Arg: 2, Data: list}}})
	for i := range int(n) {
		nodes = append(nodes, number(list[4*i:]))
	}
	return binary.NativeEndian.Uint64(head), nodes, err
}

// NodeByName is the number of a node. ENOENT: there is none of that name.
func NodeByName(name string) (int, error) {
	info, err := GetInfo()
	if err != nil {
		return 0, err
	}
	for n := 1; n <= info.MaxNodes; n++ {
		node, err := GetNode(n)
		switch {
		case err == nil && node.Name == name:
			return n, nil
		case err != nil && !errors.Is(err, unix.ENOENT):
			return 0, err
		}
	}
	return 0, fmt.Errorf("node %s: %w", name, unix.ENOENT)
}

// Exec is execve(2) of a program on another node, with all that rexecve in cluster.h
// says. It returns only if that fails. EINVAL also: a string has a NUL.
func Exec(path string, argv, environ []string, node int) error {
	// The list of addresses is made of bytes, so these keep the strings.
	var keep [][]byte
	list := func(texts []string) ([]byte, error) {
		var b []byte
		for _, s := range texts {
			text, err := unix.ByteSliceFromString(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", call.Rexecve, err)
			}
			keep = append(keep, text)
			b = binary.NativeEndian.AppendUint64(b, uint64(reflect.ValueOf(text).Pointer()))
		}
		return binary.NativeEndian.AppendUint64(b, 0), nil
	}
	name, err := unix.ByteSliceFromString(path)
	if err != nil {
		return fmt.Errorf("%s: %w", call.Rexecve, err)
	}
	args, err := list(argv)
	if err != nil {
		return err
	}
	env, err := list(environ)
	if err != nil {
		return err
	}
	const tries = 10
	for range tries {
		fd, err := do(call.Rexecve, sys.Call{Args: [6]uint64{3: uint64(node)}, Mem: []sys.Memory{{Arg: 0, Data: name}, {Arg: 1, Data: args}, {Arg: 2, Data: env}}})
		runtime.KeepAlive(keep)
		if err != nil {
			return err
		}
		if err := unix.Close(int(fd)); err != nil { // a daemon was killed
			return fmt.Errorf("%s: descriptor %d: %w", call.Rexecve, fd, err)
		}
	}
	return fmt.Errorf("%s: %w", call.Rexecve, unix.EAGAIN)
}

func ssiInfo(node int) ([]byte, error) {
	b := make([]byte, infoSize)
	_, err := do(call.SsiInfo, sys.Call{Args: [6]uint64{1: infoSize, 2: uint64(node)}, Mem: []sys.Memory{{Arg: 0, Data: b}}})
	return b, err
}

// do makes one of the cluster's calls.
func do(n call.Nr, c sys.Call) (int64, error) {
	c.Nr = call.ClusterBase + uintptr(n-call.SsiInfo)
	if err := sys.Make(&c); err != nil {
		return 0, fmt.Errorf("%s: %w", n, err)
	}
	if e := c.Errno(); e != 0 {
		return 0, fmt.Errorf("%s: %w", n, e)
	}
	return c.Ret, nil
}

func number(b []byte) int { return int(binary.NativeEndian.Uint32(b)) }

func text(b []byte) string {
	b, _, _ = bytes.Cut(b[:72], []byte{0})
	return string(b)
}
