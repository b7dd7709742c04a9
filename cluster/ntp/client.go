package ntp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/facebook/time/ntp/protocol"
)

const (
	// Port is the UDP port of NTP.
	Port = 123
	// MaxServers is how many servers can be configured.
	MaxServers = 8

	askTimeout = time.Second // for one answer, the name's lookup not included
	nameLimit  = 2 * time.Second
	forgetName = 4  // rounds without an answer after which a name is looked up again
	maxStrays  = 16 // packets that are no answer, before it is given up
	kissRounds = 16 // rounds that a server is left alone that asked for it

	// The node that holds init is asked more than once in a round: of the answers
	// the one that was under way for the shortest time counts. It is few enough for
	// its limiter, even in the first rounds.
	burst       = 4
	burstGap    = 20 * time.Millisecond // longer than a process waits for the processor, most times
	burstLosses = 2                     // lost answers after which the rest is not asked
)

// CheckServer refuses what is no HOST or HOST:PORT of a server.
func CheckServer(server string) error {
	host, port, err := splitServer(server)
	if err != nil {
		return err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if host == "" || len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != "" {
		return fmt.Errorf("%q is no host name, such as pool.ntp.org", host)
	}
	_ = port
	return nil
}

// splitServer takes HOST, HOST:PORT, an IPv6 address, or [IPv6]:PORT apart.
func splitServer(server string) (host string, port uint16, err error) {
	if addr, err := netip.ParseAddr(strings.Trim(server, "[]")); err == nil {
		return addr.String(), Port, nil
	}
	if !strings.Contains(server, ":") {
		return server, Port, nil
	}
	host, p, err := net.SplitHostPort(server)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no HOST or HOST:PORT", server)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q: the port is a number from 1 to 65535", server)
	}
	return host, uint16(n), nil
}

// server is one that this node asks. Only the round that asks it uses it.
type server struct {
	name   string
	addr   netip.AddrPort // of name, once looked up
	burst  int            // questions of one round
	missed int            // rounds without an answer
	kissed int            // rounds it is still left alone
	err    error          // why the last round got nothing
}

// client asks servers. now is the wall clock, nil that of the system, for which
// the kernel's time of arrival is used; mono is the time of Sample.At.
type client struct {
	now  func() time.Time
	mono func() time.Duration
}

// round asks all servers at once and waits for all.
func (c *client) round(ctx context.Context, servers []*server) [][]Sample {
	answers := make([][]Sample, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			if s.kissed > 0 {
				s.kissed--
				return
			}
			sample, err := c.ask(ctx, s)
			s.err = err
			if err != nil {
				s.missed++
				return
			}
			s.missed = 0
			answers[i] = []Sample{sample}
		})
	}
	wg.Wait()
	return answers
}

func (c *client) ask(ctx context.Context, s *server) (Sample, error) {
	if !s.addr.IsValid() || s.missed >= forgetName {
		if err := s.lookUp(ctx); err != nil {
			return Sample{}, err
		}
	}
	sample, err := c.best(ctx, s)
	var kiss *kissError
	if errors.As(err, &kiss) {
		s.kissed = kissRounds
	}
	if err != nil {
		return Sample{}, fmt.Errorf("ask %s for the time: %w", s.name, err)
	}
	return sample, nil
}

// best asks the questions of one round and returns the answer with the least
// delay, or why there was none.
func (c *client) best(ctx context.Context, s *server) (Sample, error) {
	var answers []Sample
	var err error
	for lost := 0; lost < burstLosses && len(answers)+lost < max(s.burst, 1); {
		if len(answers)+lost > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(burstGap):
			}
		}
		sample, xerr := c.exchange(ctx, s.addr)
		switch {
		case xerr == nil:
			answers = append(answers, sample)
		case errors.Is(xerr, os.ErrDeadlineExceeded):
			err = xerr
			lost++
		default: // what is refused once is refused again
			err = xerr
			lost = burstLosses
		}
	}
	if len(answers) == 0 {
		return Sample{}, err
	}
	return slices.MinFunc(answers, func(a, b Sample) int { return cmp.Compare(a.Delay, b.Delay) }), nil
}

// exchange sends a request and waits for its answer; others are passed over.
func (c *client) exchange(ctx context.Context, addr netip.AddrPort) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr.String())
	if err != nil {
		return Sample{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	udp := conn.(*net.UDPConn) // "udp" was dialled
	wantKernelTime(udp)
	q := newQuestion()
	request, err := q.packet().Bytes()
	if err != nil {
		return Sample{}, err
	}
	sent := wallTime(c.now)
	if _, err := udp.Write(request); err != nil {
		return Sample{}, err
	}
	buf, oob := make([]byte, protocol.PacketSizeBytes+1), make([]byte, 128)
	for range maxStrays {
		n, oobn, _, _, err := udp.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return Sample{}, err
		}
		arrived := arrival(c.now, oob[:oobn])
		sample, err := q.evaluate(buf[:min(n, protocol.PacketSizeBytes)], sent, arrived)
		if errors.Is(err, errStray) {
			continue
		}
		sample.At = c.mono()
		return sample, err
	}
	return Sample{}, fmt.Errorf("%d answers to other questions came", maxStrays)
}

// lookUp finds the address of the server and stays with it: a name of a pool has
// another one each time.
func (s *server) lookUp(ctx context.Context) error {
	host, port, err := splitServer(s.name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nameLimit)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return fmt.Errorf("look up the time server %s: %w", s.name, err)
	}
	if len(addrs) == 0 {
		return fmt.Errorf("look up the time server %s: it has no address", s.name)
	}
	s.addr = netip.AddrPortFrom(addrs[0].Unmap(), port)
	s.missed = 0
	return nil
}
