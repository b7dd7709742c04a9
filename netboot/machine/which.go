package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	neturl "net/url"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probeTime is how long an interface may take to answer a probe.
const probeTime = 5 * time.Second

// Which finds the interface that this machine booted from, where its boot loader
// cannot tell (a unified kernel image has one command line for all): it asks the
// cluster at url over each interface that has an address in the same network
// whether it booted the machine with this MAC address. It waits for such an
// interface until ctx ends; say gets each new reason, and an old one every half minute.
func Which(ctx context.Context, url string, say func(text string)) (mac string, err error) {
	const sayAgain = 30 * time.Second
	said, at := "", time.Time{}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		mac, why := which(ctx, url)
		if why == nil {
			return mac.String(), nil
		}
		if text := why.Error(); (text != said || time.Since(at) > sayAgain) && ctx.Err() == nil {
			said, at = text, time.Now()
			say(text)
		}
		if err := sleep(ctx, pause); err != nil {
			return "", fmt.Errorf("which interface did this machine boot from? %w; %w", why, err)
		}
	}
}

// which asks once over each interface.
func which(ctx context.Context, url string) (MAC, error) {
	facing, err := Facing(url)
	if err != nil {
		return MAC{}, err
	}
	if len(facing) == 0 {
		return MAC{}, fmt.Errorf("no interface has an address in the network of %s yet: does its cable have a carrier?", url)
	}
	var whys []string
	for _, f := range facing {
		err := f.probe(ctx, url)
		if err != nil && !errors.Is(err, errNotBooted) { // nobody is there: has init moved?
			if now, notFound := find(ctx, f.MAC); notFound == nil && now != url {
				err = f.probe(ctx, now)
			}
		}
		if err == nil {
			return f.MAC, nil
		}
		whys = append(whys, fmt.Sprintf("%s (%s): %v", f.Name, f.MAC, err))
	}
	return MAC{}, errors.New(strings.Join(whys, "; "))
}

// errNotBooted is the answer for an interface that was not booted from.
var errNotBooted = errors.New("the cluster has not booted a machine with this address")

// Face is an interface in the network of a node.
type Face struct {
	Name string
	MAC  MAC
	Addr netip.Addr
}

// Facing lists the interfaces that have an IPv4 address in the network of the node
// at url (http://HOST:PORT), at most maxFinds.
func Facing(url string) ([]Face, error) {
	u, err := neturl.Parse(url)
	if err != nil {
		return nil, err
	}
	node, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []Face
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil || len(l.HardwareAddr) != len(MAC{}) {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Is4() && p.Contains(node) && len(list) < maxFinds {
				list = append(list, Face{l.Name, MAC(l.HardwareAddr), p.Addr()})
				break
			}
		}
	}
	return list, nil
}

// probe asks the cluster at url over this interface alone, so that it sees the
// address and the MAC address that belong together.
func (f Face) probe(ctx context.Context, url string) error {
	body, err := json.Marshal(progress{f.MAC, "kernel", "looks for the interface it booted from"})
	if err != nil {
		return err
	}
	u, err := neturl.Parse(url)
	if err != nil {
		return err
	}
	dialer := &net.Dialer{Timeout: dialTime, LocalAddr: &net.TCPAddr{IP: f.Addr.AsSlice()}, Control: bindTo(f.Name)}
	conn, err := dialer.DialContext(ctx, "tcp4", u.Host)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	client := newClient()
	client.Timeout = probeTime
	client.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }, DisableKeepAlives: true}
	status, _, err := post(ctx, client, url+PathProgress, body)
	switch {
	case err != nil:
		return err
	case status == http.StatusForbidden:
		return errNotBooted
	case status/100 != 2:
		return fmt.Errorf("HTTP status %d", status)
	}
	return nil
}

// bindTo makes sockets that use one interface (SO_BINDTODEVICE, socket(7)).
func bindTo(ifname string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), ifname) })
		return errors.Join(err, failed)
	}
}
