package vmtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/vm"
)

const (
	clockQuestions = 100 // of one measurement
	clockGap       = 10 * time.Millisecond
	clockAnswer    = time.Second // the longest wait for one answer
	day            = 24 * time.Hour
)

// Ahead is by how much a clock is ahead of this computer's: somewhere between
// the two.
type Ahead struct{ Low, High time.Duration }

// Middle is the best guess; it is at most Error off.
func (a Ahead) Middle() time.Duration { return a.Low + (a.High-a.Low)/2 }

// Error is how far the truth may be from Middle.
func (a Ahead) Error() time.Duration { return (a.High - a.Low) / 2 }

// Minus is by how much the clock is ahead of another one.
func (a Ahead) Minus(b Ahead) Ahead { return Ahead{a.Low - b.High, a.High - b.Low} }

// narrow takes one more answer into account: the clock said ms milliseconds
// since midnight UTC at some time between sent and arrived. It was truncated, so
// it was up to a millisecond more.
func (a Ahead) narrow(ms uint32, sent, arrived time.Duration) Ahead {
	said := time.Duration(ms) * time.Millisecond
	return Ahead{max(a.Low, sameDay(said-arrived)), min(a.High, sameDay(said-sent)+time.Millisecond)}
}

// sameDay makes a difference of two times of day less than half a day.
func sameDay(d time.Duration) time.Duration {
	d = ((d % day) + day) % day
	if d >= day/2 {
		d -= day
	}
	return d
}

// Clock compares the clock of the machine that has an IPv4 address with this
// computer's, from a namespace on its segment. Nothing of ours takes part on the
// machine: its kernel answers ICMP timestamps (RFC 792), in whole milliseconds.
// Questions at random times bound the offset from both sides, whatever their
// delays, so a loaded computer makes the bounds wider, not wrong. It takes about
// a second; the clock must not be stepped meanwhile.
func (n *Net) Clock(ns *vm.Netns, addr string) Ahead {
	n.t.Helper()
	ctx, cancel := within(n.t)
	defer cancel()
	a, err := measure(ctx, ns, net.ParseIP(addr))
	if err != nil {
		n.t.Fatalf("compare the clock of %s: %v", addr, err)
	}
	return a
}

func measure(ctx context.Context, ns *vm.Netns, addr net.IP) (Ahead, error) {
	var conn net.PacketConn
	if err := ns.Do(func() (err error) { conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0"); return err }); err != nil {
		return Ahead{}, err
	}
	defer conn.Close()
	a, answers := Ahead{-day, day}, 0
	for i := range uint16(clockQuestions) {
		ms, sent, arrived, err := askClock(conn, addr, i)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return Ahead{}, err
		default:
			a = a.narrow(ms, sent, arrived)
			answers++
		}
		select {
		case <-ctx.Done():
			return Ahead{}, ctx.Err()
		case <-time.After(rand.N(2 * clockGap)):
		}
	}
	switch {
	case answers < clockQuestions/2:
		return Ahead{}, fmt.Errorf("only %d of %d questions were answered", answers, clockQuestions)
	case a.Low > a.High:
		return Ahead{}, fmt.Errorf("it was moved meanwhile: it is at least %v and at most %v ahead", a.Low, a.High)
	}
	return a, nil
}

// askClock asks once: a timestamp message (type 13) and its reply (type 14).
func askClock(conn net.PacketConn, addr net.IP, seq uint16) (ms uint32, sent, arrived time.Duration, err error) {
	id := uint16(os.Getpid())
	b := make([]byte, 20)
	b[0] = 13
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	if err := conn.SetDeadline(time.Now().Add(clockAnswer)); err != nil {
		return 0, 0, 0, err
	}
	sent = sinceMidnight()
	// No route and the like: the machine may be down, and is asked again.
	if _, err := conn.WriteTo(b, &net.IPAddr{IP: addr}); err != nil && !errors.Is(err, unix.EHOSTUNREACH) {
		return 0, 0, 0, err
	}
	for in := make([]byte, 1500); ; {
		n, from, err := conn.ReadFrom(in)
		if err != nil {
			return 0, 0, 0, err
		}
		arrived = sinceMidnight()
		ip, ok := from.(*net.IPAddr)
		if ok && ip.IP.Equal(addr) && n >= 20 && in[0] == 14 &&
			binary.BigEndian.Uint16(in[4:]) == id && binary.BigEndian.Uint16(in[6:]) == seq {
			return binary.BigEndian.Uint32(in[12:]), sent, arrived, nil
		}
	}
}

func sinceMidnight() time.Duration {
	now := time.Now().UTC()
	return now.Sub(now.Truncate(day))
}

// checksum is that of RFC 1071, for messages of an even length.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
