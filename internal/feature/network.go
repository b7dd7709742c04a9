package feature

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// minMTU is below what the internode connections work well with: Ethernet's.
const minMTU = 1500

// network examines how other nodes reach this one.
func network(opts Options) []Result {
	return []Result{port(opts), interfaces()}
}

func port(opts Options) Result {
	r := Result{Area: "network", Name: "port", Required: true}
	l, err := net.Listen("tcp", opts.Listen)
	switch {
	case err == nil:
		r = outcome(r, opts.Listen+" is free", l.Close(), "")
	case errors.Is(err, unix.EADDRINUSE) && opts.Running:
		r.Level, r.Text = OK, opts.Listen+" is served by the daemon"
	case errors.Is(err, unix.EADDRINUSE):
		r = outcome(r, "", fmt.Errorf("%s is used by another program", opts.Listen), "see `ss -ltnp`, end that program, or set `listen` in /etc/ssi/ssi.toml")
	default:
		r = outcome(r, "", err, "set `listen` in /etc/ssi/ssi.toml to an address of this machine")
	}
	return r
}

// interfaces looks for one that is up and has an address others can use.
func interfaces() Result {
	r := Result{Area: "network", Name: "interface", Required: true}
	all, err := net.Interfaces()
	if err != nil {
		return outcome(r, "", err, "")
	}
	var good, small []string
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			ip, ok := a.(*net.IPNet)
			if !ok || !ip.IP.IsGlobalUnicast() {
				continue
			}
			good = append(good, fmt.Sprintf("%s %s", i.Name, ip.IP))
			if i.MTU < minMTU {
				small = append(small, fmt.Sprintf("%s has an MTU of %d", i.Name, i.MTU))
			}
			break
		}
	}
	switch {
	case len(good) == 0:
		r.Level, r.Text, r.Todo = Missing, "no interface is up with an address", "connect this machine to the network of the cluster"
	case len(small) > 0:
		r.Level, r.Text, r.Todo = Warn, strings.Join(small, ", "), fmt.Sprintf("an MTU of %d or more is faster", minMTU)
	default:
		r.Level, r.Text = OK, strings.Join(good, ", ")
	}
	return r
}
