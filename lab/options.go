package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"ssi/internal/errno"
	"ssi/internal/id"
)

const (
	// MaxNodes is how many nodes a lab has at most.
	MaxNodes = int(id.MaxNode)
	// DefaultName names a lab when nothing else does.
	DefaultName = "lab"
	// DefaultDisk is the size of a node's disk in bytes.
	DefaultDisk = 512 << 20
	// minDisk leaves room for what the lab itself writes to a disk.
	minDisk = 1 << 20
	// DefaultTimeout is how long Start waits for all nodes to be UP.
	DefaultTimeout = 30 * time.Second
	// VMTimeout is the same for machines: an emulated one takes about ten seconds
	// of a processor to boot.
	VMTimeout = 5 * time.Minute
	// maxShares limits Options.Share.
	maxShares = 16
)

// Options describe a lab. The zero value is a lab of three nodes.
type Options struct {
	Name    string        `json:"name"`         // letters, digits, '-', '_'; default DefaultName
	Nodes   int           `json:"nodes"`        // 1 to MaxNodes; default 3
	Profile string        `json:"profile"`      // timing profile of the cluster; default "fast", of machines "lan"
	Disk    int64         `json:"disk"`         // size of each node's disk in bytes; default DefaultDisk
	Share   []string      `json:"share"`        // directories of the host that nodes see at the same path, as private copies
	Binary  string        `json:"binary"`       // what the nodes and the supervisor run; default this program
	Seed    uint64        `json:"seed"`         // of the random losses
	Detach  bool          `json:"-"`            // the lab outlives this process
	NoWait  bool          `json:"-"`            // do not wait until the nodes are UP
	Timeout time.Duration `json:"-"`            // for the nodes to be UP; default DefaultTimeout, or VMTimeout
	VM      *VM           `json:"vm,omitempty"` // the nodes are machines; Disk and Share are not used
}

// complete fills in the defaults and checks the rest.
func (o *Options) complete() error {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if err := checkName(o.Name); err != nil {
		return err
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return errno.New(errno.Invalid, "lab", 0, "%d nodes: a lab has 1 to %d", o.Nodes, MaxNodes)
	}
	if o.Profile == "" {
		o.Profile = "fast"
		if o.VM != nil { // which are too slow for that
			o.Profile = "lan"
		}
	}
	if o.Disk == 0 {
		o.Disk = DefaultDisk
	}
	if o.Disk < minDisk {
		return errno.New(errno.Invalid, "lab", 0, "a disk of %d bytes is too small: at least %d", o.Disk, minDisk)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
		if o.VM != nil {
			o.Timeout = VMTimeout
		}
	}
	if len(o.Share) > maxShares {
		return errno.New(errno.Invalid, "lab", 0, "%d shared directories: at most %d", len(o.Share), maxShares)
	}
	for _, dir := range o.Share {
		if fi, err := os.Stat(dir); err != nil || !fi.IsDir() || !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || own(dir) {
			return errno.New(errno.Invalid, "lab", 0, "cannot share %q: give the clean absolute path of a directory outside of %s", dir, strings.Join(ownDirs(), ", "))
		}
	}
	if o.Binary == "" {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("lab: which binary to run: %w", err)
		}
		o.Binary = exe
	}
	if o.VM != nil {
		return o.VM.complete(o.Nodes)
	}
	return nil
}

// ownDirs are what every node has of its own and cannot be shared.
func ownDirs() []string { return []string{"/run", "/dev", "/proc", "/sys", configDir, stateDir} }

// own reports whether dir is in a node's own part of the tree, or holds all of it.
func own(dir string) bool {
	return dir == "/" || slices.ContainsFunc(ownDirs(), func(d string) bool { return strings.HasPrefix(dir+"/", d+"/") })
}

func checkName(name string) error {
	// 32 bytes keep the control socket's path within its limit of 107.
	if ok, err := regexp.MatchString(`^[A-Za-z0-9_-]{1,32}$`, name); err != nil || !ok {
		return errno.New(errno.Invalid, "lab", 0, "%q is no name for a lab: 1 to 32 letters, digits, '-' or '_'", name)
	}
	return nil
}

// Address plan: the same in every lab, since labs do not see each other.
const (
	subnet  = "10.85.0."
	icsPort = "1985"
)

// Addr is the address of node n in every lab.
func Addr(n id.Node) string { return subnet + n.String() }

// Host is the host name of node n.
func Host(n id.Node) string { return "node" + n.String() }
