package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ssi/internal/id"
)

const (
	// frameSize is the largest frame: the kernel hands over segments up to 64 KiB
	// that are cut only later, with a header that says so.
	frameSize = 1<<16 + 256
	// vnetHeader is the length of struct virtio_net_hdr, which both sides put in
	// front of each frame.
	vnetHeader = 10
	wireBuffer = 8 << 20 // bytes the kernel keeps for the socket
)

// wire is the cable of a node with faults: it passes frames between the node's
// port and a TAP interface in the bridge. It has four goroutines, two for each
// direction; close waits for them.
type wire struct {
	n     id.Node
	log   *slog.Logger
	plan  atomic.Pointer[plan]
	port  *os.File // AF_PACKET socket on the node's port
	tap   *os.File
	index int // of tap
	seed  uint64
	lines [2]*delayLine // toward the bridge, toward the node
	pumps sync.WaitGroup
	held  sync.WaitGroup // the goroutines of lines

	passed, dropped atomic.Uint64
}

// newWire makes the wire of node n; frames are kept in its socket until start.
func newWire(n id.Node, port, bridge int, p *plan, seed uint64, log *slog.Logger) (*wire, error) {
	w := &wire{n: n, log: log, seed: seed}
	w.plan.Store(p)
	var err error
	if w.tap, w.index, err = openTap("tap"+n.String(), bridge); err != nil {
		return nil, err
	}
	if w.port, err = openPort(port); err != nil {
		_ = w.tap.Close()
		return nil, err
	}
	w.lines[0] = newDelayLine(func(f []byte) { w.write(w.tap, f) })
	w.lines[1] = newDelayLine(func(f []byte) { w.write(w.port, f) })
	return w, nil
}

// openTap makes a TAP interface, which lives as long as the file, in the bridge.
func openTap(name string, bridge int) (f *os.File, index int, err error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("lab: the kernel has no TUN/TAP: load the module (`modprobe tun`): %w", err)
	}
	fail := func(err error) (*os.File, int, error) {
		_ = unix.Close(fd)
		return nil, 0, fmt.Errorf("lab: %s: %w", name, err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fail(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fail(err)
	}
	const csumAndTSO = 1 | 2 | 4 // TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 of linux/if_tun.h
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, csumAndTSO); err != nil {
		return fail(err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fail(err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fail(err)
	}
	if err := netlink.LinkSetMasterByIndex(l, bridge); err != nil {
		return fail(err)
	}
	return os.NewFile(uintptr(fd), name), l.Attrs().Index, nil
}

// openPort makes a socket that takes every frame the node sends and sends frames
// to it.
func openPort(index int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("lab: the kernel has no packet sockets (CONFIG_PACKET): %w", err)
	}
	for _, o := range []struct{ opt, value int }{{unix.PACKET_VNET_HDR, 1}, {unix.PACKET_IGNORE_OUTGOING, 1}} {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, o.opt, o.value)
		}
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wireBuffer)
	}
	if err == nil {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("lab: packet socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "port"), nil
}

func (w *wire) start() {
	w.pumps.Go(func() {
		w.pump(w.port, w.tap, w.lines[0], 0, func(p *plan, _ []byte) rule { return p.out })
	})
	w.pumps.Go(func() {
		w.pump(w.tap, w.port, w.lines[1], 1, func(p *plan, f []byte) rule {
			from := nodeOf(f[vnetHeader+6 : vnetHeader+12])
			if from == w.n { // while the port is in the bridge as well
				return rule{cut: true}
			}
			return p.toward(from)
		})
	})
	for _, l := range w.lines {
		w.held.Go(l.run)
	}
}

// drain sends what is held back and passes all else without any fault.
func (w *wire) drain() {
	w.plan.Store(&plan{})
	for _, l := range w.lines {
		l.close(true)
	}
	w.held.Wait()
}

// close ends the wire; what is held back is lost.
func (w *wire) close() {
	for _, l := range w.lines {
		l.close(false)
	}
	_, _ = w.port.Close(), w.tap.Close()
	w.pumps.Wait()
	w.held.Wait()
	// A child of this process may have the TAP's descriptor until it executes its
	// program, but the name is to be free now, for the next wire.
	if err := netlink.LinkDel(byIndex(w.index)); err != nil && !errors.Is(err, unix.ENODEV) {
		w.log.Error("a TAP interface stays", "node", w.n, "err", err)
	}
}

// pump passes frames one way until the wire is closed.
func (w *wire) pump(from, to *os.File, line *delayLine, way uint64, ruleOf func(*plan, []byte) rule) {
	random := rand.New(rand.NewPCG(w.seed, uint64(w.n)<<1|way))
	buf := make([]byte, frameSize)
	for {
		n, err := from.Read(buf)
		switch {
		case errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.EINVAL):
			continue // the port went down, or one frame had no fit header: said once each
		case err != nil:
			if !errors.Is(err, os.ErrClosed) {
				w.log.Error("wire ends", "node", w.n, "err", err)
			}
			return
		case n < vnetHeader+14:
			continue
		}
		r := ruleOf(w.plan.Load(), buf[:n])
		switch {
		case r.cut, r.loss > 0 && random.Float64() < r.loss:
			w.dropped.Add(1)
		case r.delay > 0 || line.busy():
			if !line.put(buf[:n], time.Now().Add(r.delay)) {
				w.dropped.Add(1)
			}
		default:
			w.write(to, buf[:n])
		}
	}
}

// write sends a frame on; one that cannot be sent is lost as on a real cable.
func (w *wire) write(to *os.File, frame []byte) {
	if _, err := to.Write(frame); err != nil {
		w.dropped.Add(1)
		return
	}
	w.passed.Add(1)
}
