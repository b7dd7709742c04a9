package gate

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/internal/sys"
)

// Install gives this process, and all that descend from it, the filter of a node,
// and returns its listener. It is for the role spawn and for a login on the console, once, before they
// create anything; see sys.InstallFilter for what it needs.
func Install(node id.Node) (listener *os.File, err error) {
	prog, err := Filter(node)
	if err != nil {
		return nil, err
	}
	fd, err := sys.InstallFilter(prog)
	if err != nil {
		return nil, fmt.Errorf("filter of node %d: %w", node, err)
	}
	if err := sys.WakeOnSameCPU(fd); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) { // a matter of speed, for older kernels
		_ = unix.Close(fd)
		return nil, fmt.Errorf("filter of node %d: listener: %w", node, err)
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}
