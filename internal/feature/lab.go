package feature

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lab tries what only `ssi lab` needs.
func lab(Options) []Result {
	r := func(name string) Result { return Result{Area: "lab", Name: name} }
	return []Result{
		outcome(r("overlay"), "can be mounted", filesystem("overlay"), "only for `ssi lab`: modprobe overlay"),
		outcome(r("bridge, veth"), "work", bridge(), "only for `ssi lab`: modprobe bridge veth"),
		outcome(r("tun"), "works", device("/dev/net/tun"), "only for faults in `ssi lab`: modprobe tun"),
		outcome(r("AF_PACKET"), "works", packet(), "only for faults in `ssi lab`: modprobe af_packet"),
	}
}

// bridge makes a bridge and a pair of interfaces in a network namespace that
// ends with the probe.
func bridge() error {
	return inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("net namespace: %w", err)
		}
		for _, link := range []netlink.Link{
			&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe"}},
			&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, PeerName: "probe1"},
		} {
			if err := netlink.LinkAdd(link); err != nil {
				return fmt.Errorf("make a %s: %w", link.Type(), err)
			}
		}
		return nil
	})
}

func packet() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	return errors.Join(unix.Close(fd))
}
