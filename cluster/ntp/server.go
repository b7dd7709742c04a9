package ntp

import (
	"crypto/md5" //nolint:gosec // the identifier of an IPv6 server is one, RFC 5905 section 7.3
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/facebook/time/ntp/protocol"
)

// Fields of the first byte (RFC 5905, section 7.3).
const (
	modeClient = 3
	modeServer = 4
	minVersion = 3
	maxVersion = 4

	precision   = -20         // log2 of the seconds that reading the clock takes
	shortUnit   = 1.0 / 65536 // seconds, of the 32-bit format
	maxReadErrs = 100
)

// answerer is what is told to clients: made by the core, used by the listeners.
type answerer struct {
	reference
	id    uint32        // of the source
	taken time.Duration // when reference was made
	when  time.Time     // when the clock was last corrected
}

// reply makes the answer to a request, or says that it deserves none. Only the
// plain request of a client is answered: modes 6 and 7 amplify, symmetric modes
// and authentication need state, extensions need what this server does not have.
// The answer is as long as the request.
func (a *answerer) reply(request []byte, received time.Time, now time.Duration) (*protocol.Packet, bool) {
	if len(request) != protocol.PacketSizeBytes {
		return nil, false
	}
	in, err := protocol.BytesToPacket(request)
	if err != nil {
		return nil, false
	}
	version := in.Settings >> 3 & 7
	if in.Settings&7 != modeClient || version < minVersion || version > maxVersion {
		return nil, false
	}
	out := &protocol.Packet{
		Settings: version<<3 | modeServer, // no leap second is announced
		Stratum:  a.stratum, Poll: in.Poll, Precision: precision,
		RootDelay:      shortFormat(a.delay),
		RootDispersion: shortFormat(a.dispersion + drifted(now-a.taken)),
		ReferenceID:    a.id,
		OrigTimeSec:    in.TxTimeSec, OrigTimeFrac: in.TxTimeFrac,
	}
	when := a.when
	if a.source < 0 {
		when = received.Add(-time.Second) // the own clock is its reference now, and before the answer
	}
	out.RefTimeSec, out.RefTimeFrac = protocol.Time(when)
	out.RxTimeSec, out.RxTimeFrac = protocol.Time(received)
	return out, true
}

// shortFormat is a duration in seconds with a 16-bit fraction (RFC 5905, section
// 6).
func shortFormat(d time.Duration) uint32 {
	return uint32(min(max(d.Seconds()/shortUnit, 0), 1<<32-1))
}

// referenceID names the source for those below, so that they see a loop: an IPv4
// address, or four bytes of the hash of an IPv6 one.
func referenceID(addr netip.Addr) uint32 {
	if !addr.IsValid() {
		return binary.BigEndian.Uint32([]byte("LOCL"))
	}
	if addr = addr.Unmap(); addr.Is4() {
		b := addr.As4()
		return binary.BigEndian.Uint32(b[:])
	}
	b := addr.As16()
	sum := md5.Sum(b[:]) //nolint:gosec // see above
	return binary.BigEndian.Uint32(sum[:4])
}

// listener answers on one socket.
type listener struct {
	conn  *net.UDPConn
	allow func(netip.Addr) bool
	ref   func() *answerer
	now   func() time.Time // nil: the system's, and the kernel's time of arrival
	mono  func() time.Duration
	done  chan struct{}
}

// listen binds the socket. serve must be called after it.
func listen(addr netip.AddrPort) (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("serve time at %v: %w", addr, err)
	}
	wantKernelTime(conn)
	return conn, nil
}

// serve answers until the socket is closed.
func (l *listener) serve() {
	defer close(l.done)
	limit := newLimiter()
	buf := make([]byte, protocol.PacketSizeBytes+1) // one more shows what is too long
	oob := make([]byte, 128)
	for errs := 0; errs < maxReadErrs; {
		n, oobn, _, from, err := l.conn.ReadMsgUDPAddrPort(buf, oob)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			errs++
			continue
		}
		errs = 0
		received := arrival(l.now, oob[:oobn])
		if addr := from.Addr().Unmap(); !l.allow(addr) || !limit.take(addr, l.mono()) {
			continue
		}
		l.answer(buf[:n], received, from)
	}
}

func (l *listener) answer(request []byte, received time.Time, to netip.AddrPort) {
	out, ok := l.ref().reply(request, received, l.mono())
	if !ok {
		return
	}
	out.TxTimeSec, out.TxTimeFrac = protocol.Time(wallTime(l.now))
	b, err := out.Bytes()
	if err != nil {
		return // it has no extensions that could be too long
	}
	// A full buffer loses the answer, as a full network would.
	_ = l.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = l.conn.WriteToUDPAddrPort(b, to)
}
