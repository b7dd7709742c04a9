package ntp

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// softClock is a clock in software: real time and what it was moved.
type softClock struct {
	mu    sync.Mutex
	ahead time.Duration
	at    time.Time // since when ppm and slew are in force
	ppm   float64
	slew  time.Duration
	steps int
	fails error
	calls int
}

func newSoftClock(ahead time.Duration) *softClock { return &softClock{ahead: ahead, at: time.Now()} }

// settle brings ahead to now; mu is held.
func (c *softClock) settle(now time.Time) {
	dt := now.Sub(c.at)
	limit := time.Duration(slewRate * float64(dt))
	moved := min(max(c.slew, -limit), limit)
	c.slew -= moved
	c.ahead += moved + time.Duration(c.ppm/1e6*float64(dt))
	c.at = now
}

func (c *softClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.settle(now)
	return now.Round(0).Add(c.ahead)
}

func (c *softClock) Ahead() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle(time.Now())
	return c.ahead
}

func (c *softClock) Adjust(ppm float64, slew time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle(time.Now())
	c.calls++
	c.ppm, c.slew = ppm, slew
	return c.fails
}

func (c *softClock) Step(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle(time.Now())
	c.calls++
	if c.fails != nil {
		return c.fails
	}
	c.steps++
	c.ahead, c.slew = c.ahead+d, 0
	return nil
}

// freePort is a UDP port of loopback that nobody has now.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func everyone(netip.Addr) bool { return true }

// openNode opens a service on a clock of its own that is closed with the test.
func openNode(t *testing.T, clock *softClock, change func(*Config)) *Service {
	t.Helper()
	cfg := Config{Discipline: true, Boot: true, Serve: true, Allow: everyone, Log: slog.New(slog.DiscardHandler), Clock: clock, Now: clock.Now}
	if change != nil {
		change(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openInit opens one that holds init and serves on loopback.
func openInit(t *testing.T, clock *softClock, change func(*Config)) (*Service, netip.AddrPort) {
	t.Helper()
	addr := freePort(t)
	s := openNode(t, clock, func(cfg *Config) {
		cfg.Listen = []netip.AddrPort{addr}
		if change != nil {
			change(cfg)
		}
	})
	s.Follow(Role{Init: true})
	eventually(t, "init serves", func() bool { return s.Status().Serving })
	return s, addr
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
