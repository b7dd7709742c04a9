package lab

import (
	"os"

	"ssi/internal/errno"
)

// precheck says in one line what a lab needs that is not there. Kernel features
// are named where they are used: the first use of some loads their module.
func precheck() error {
	if os.Geteuid() != 0 {
		return errno.New(errno.Permission, "lab", 0, "a lab makes namespaces and mounts and needs root: run it with sudo (`sudo make lab`, `sudo ssi lab run`)")
	}
	return nil
}
