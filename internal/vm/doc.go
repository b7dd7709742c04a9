// Package vm runs machines: QEMU without KVM, and the Ethernet segments between
// them, for `ssi lab --vm` and for tests.
//
// A Network owns a directory, segments and machines. A Segment is a learning
// bridge in this process; the NICs of machines are ports of it (QEMU's `-netdev
// stream`), and so are Host (frames in Go) and Tap (an interface of a network
// namespace, so that a server of the host takes part). Faults concern a pair of
// ports in one direction: loss, delay, cut. A Machine is described by a Spec; it
// can be powered on, cut off and powered on again, and keeps its disks, its
// firmware's variables and its console over that. Serial line, QMP monitor and
// NICs are socket pairs of which QEMU gets one end: no byte of the console is
// lost, nobody else can connect, and the death of either side is the end of file
// at the other. QEMU dies with this process (PR_SET_PDEATHSIG).
//
// # Locks and goroutines
//
// Lock order: Machine.op (serialises PowerOn and Kill), then Network.mu, then
// Machine.mu, then Segment.mu, then that of a queue or Console.mu; life.mu, plug.mu and
// tail.mu are held alone. monitor.op is held during a request, for qmpTime at most.
// No other but Machine.op is held while waiting.
//
// What is plugged into a port has two goroutines, one per direction; unplug waits
// for them. A machine that is on has four: its process (locked to the thread that
// is the parent of QEMU), its console, its monitor and the copier of QEMU's
// messages; the first of them ends last and closes life.done. Network.Close waits
// for all.
//
// # Limits
//
// MaxMachines machines, MaxSegments segments, MaxPorts ports of a segment,
// maxTable learned addresses (those beyond are flooded, not learned), maxFaults
// faults; a port holds back at most queueFrames frames and queueBytes bytes and
// drops what comes over. A console keeps its last consoleSize bytes in memory
// and consoleFile bytes in its file; a capture has at most captureSize bytes. A
// message of the monitor has at most qmpLine bytes and qmpTime to be answered.
//
// What comes out of a machine (frames, console, monitor messages) is hostile: it
// is bounded and never trusted for its length. The package must never touch the
// network of the host outside a namespace that its caller made, never use KVM,
// and never connect machines to anything but their segments.
package vm

import "errors"

// ErrOff says that a machine is off, or went off while something waited for it.
var ErrOff = errors.New("the machine is off")

const (
	// MaxMachines is how many machines a network has.
	MaxMachines = 64
	// MaxSegments is how many segments a network has.
	MaxSegments = 16
	// MaxPorts is how many ports a segment has.
	MaxPorts = 128
)
