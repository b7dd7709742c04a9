package keeper

import (
	"errors"
	"log/slog"
	"net"
	"os"

	"ssi/internal/proc"
)

// Client is the node role's connection to PID 1. Its methods are safe for
// concurrent use.
type Client struct{}

// Open takes the connection that PID 1 gave to this process and calls onExit
// for every process that PID 1 reaped, one at a time, in order; onExit must
// not block.
func Open(log *slog.Logger, onExit func(proc.Exit)) (*Client, error) { return nil, errors.ErrUnsupported }

// Close ends the connection and waits for its goroutine.
func (c *Client) Close() error { return nil }

// Put gives PID 1 a duplicate of f to keep under name.
func (c *Client) Put(name string, f *os.File) error { return nil }

// Take returns a duplicate of the file kept under name, or fs.ErrNotExist.
func (c *Client) Take(name string) (*os.File, error) { return nil, nil }

// Drop makes PID 1 close what it keeps under name.
func (c *Client) Drop(name string) error { return nil }

// Listen returns the listener kept under name if it has this address, or
// makes one and has it kept.
func (c *Client) Listen(name, network, addr string) (net.Listener, error) { return nil, nil }

// Ending says what becomes of the machine.
type Ending uint8

// The endings.
const (
	Halt Ending = iota + 1
	PowerOff
	Reboot
)

// Shutdown asks PID 1 to end this node in order; it returns once PID 1 has
// begun, and then sends SIGTERM to this process.
func (c *Client) Shutdown(e Ending) error { return nil }
