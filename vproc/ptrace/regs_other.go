//go:build !amd64

package ptrace

import (
	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// supported tells whether this machine's registers are known. Here the call fails
// with ENOSYS before anything below is used.
const supported = false

type registers struct{}

const (
	callInstruction = "\x00\x00\x00\x00"
	callSize        = 4
)

func (g *registers) load(int) error                            { return unix.ENOSYS }
func (g *registers) store(int) error                           { return unix.ENOSYS }
func (g *registers) result() int64                             { return -int64(unix.ENOSYS) }
func (g *registers) returnsFrom(*call.Request, uint64) bool    { return false }
func (g *registers) returning(int64) *registers                { return g }
func (g *registers) calling(uint64, [5]uint64) *registers      { return g }
func (g *registers) entered(nr uint64, before *registers) bool { return false }
