package ntp

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node takes the time of init at boot, and after a failover that of the new one
// without a step.
func TestNodeFollowsInit(t *testing.T) {
	t.Parallel()
	_, first := openInit(t, newSoftClock(time.Hour), nil)
	_, second := openInit(t, newSoftClock(time.Hour+40*time.Millisecond), nil)
	clock := newSoftClock(-3 * time.Second)
	node := openNode(t, clock, nil)
	node.Follow(Role{Addr: first})
	<-node.Synchronised()
	eventually(t, "the clock is init's", func() bool { return (clock.Ahead() - time.Hour).Abs() < 5*time.Millisecond })
	if s := node.Status(); s.Source != first.String() && s.Source != "" || s.Serving {
		t.Errorf("status %+v", s)
	}
	eventually(t, "status", func() bool { s := node.Status(); return s.Source == first.String() && s.Stratum == LocalStratum+1 })

	node.Follow(Role{Addr: second})
	eventually(t, "the new init's offset is seen", func() bool {
		s := node.Status()
		return s.Source == second.String() && s.Offset > 20*time.Millisecond
	})
	eventually(t, "it is slewed", func() bool {
		clock.mu.Lock()
		defer clock.mu.Unlock()
		return clock.slew > 0
	})
	if clock.steps != 1 {
		t.Errorf("%d steps", clock.steps)
	}
}

// The init node asks its servers, believes the majority, and says whom.
func TestInitAsksServers(t *testing.T) {
	t.Parallel()
	var servers []string
	for _, ahead := range []time.Duration{0, 0, 10 * time.Second} {
		_, addr := openInit(t, newSoftClock(ahead), nil)
		servers = append(servers, addr.String())
	}
	clock := newSoftClock(-time.Minute)
	node, addr := openInit(t, clock, func(cfg *Config) { cfg.Servers = servers })
	<-node.Synchronised()
	eventually(t, "the majority's time", func() bool { return clock.Ahead().Abs() < 5*time.Millisecond })
	eventually(t, "status", func() bool {
		s := node.Status()
		return s.Stratum == LocalStratum+1 && len(s.Servers) == 3 && s.Servers[0].Believed && !s.Servers[2].Believed
	})
	follower := openNode(t, newSoftClock(0), nil)
	follower.Follow(Role{Addr: addr})
	eventually(t, "stratum 12 below", func() bool { return follower.Status().Stratum == LocalStratum+2 })
}

// Who may not touch the clock does not, says why, and serves and measures.
func TestObserver(t *testing.T) {
	t.Parallel()
	_, addr := openInit(t, newSoftClock(0), nil)
	clock := newSoftClock(2 * time.Second)
	node := openNode(t, clock, func(cfg *Config) { cfg.Discipline, cfg.Why = false, "chronyd disciplines it" })
	node.Follow(Role{Addr: addr})
	eventually(t, "the offset is known", func() bool { return (node.Status().Offset + 2*time.Second).Abs() < 10*time.Millisecond })
	if s := node.Status(); s.Disciplined || s.Why != "chronyd disciplines it" {
		t.Errorf("status %+v", s)
	}
	if clock.calls != 0 {
		t.Errorf("the clock was touched %d times", clock.calls)
	}
}

// A clock that cannot be changed is observed from then on.
func TestClockRefuses(t *testing.T) {
	t.Parallel()
	_, addr := openInit(t, newSoftClock(0), nil)
	clock := newSoftClock(time.Second)
	clock.fails = errors.New("operation not permitted")
	node := openNode(t, clock, nil)
	node.Follow(Role{Addr: addr})
	eventually(t, "it gives up", func() bool {
		s := node.Status()
		return !s.Disciplined && strings.Contains(s.Why, "not permitted")
	})
}

// A silent server is reported; a socket that is taken is, and is tried again.
func TestFailuresAreSeen(t *testing.T) {
	t.Parallel()
	node := openNode(t, newSoftClock(0), nil)
	node.Follow(Role{Addr: freePort(t)})
	eventually(t, "no answer is seen", func() bool {
		s := node.Status()
		return s.Refused == "no server answers" && len(s.Servers) == 1 && s.Servers[0].Error != ""
	})
	holder, addr := openInit(t, newSoftClock(0), nil)
	second := openNode(t, newSoftClock(0), func(cfg *Config) { cfg.Listen = []netip.AddrPort{addr} })
	second.Follow(Role{Init: true})
	eventually(t, "the taken port is seen", func() bool { return strings.Contains(second.Status().ServeError, "in use") })
	quiet := openNode(t, newSoftClock(0), func(cfg *Config) { cfg.Serve = false })
	quiet.Follow(Role{Init: true})
	eventually(t, "it holds init", func() bool { return quiet.Status().Init })
	if s := quiet.Status(); s.Serving || s.ServeError != "" {
		t.Errorf("it shall not serve: %+v", s)
	}
	holder.Follow(Role{})
	eventually(t, "it serves at last", func() bool { return second.Status().Serving })
}

// The drift survives.
func TestDriftFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	clock := newSoftClock(0)
	s := openNode(t, clock, func(cfg *Config) { cfg.Dir = dir })
	s.cancel()
	<-s.done
	s.core.servo.freq, s.core.servo.n = -12.3456e-6, 100
	if err := s.saveDrift(); err != nil {
		t.Fatal(err)
	}
	openNode(t, clock, func(cfg *Config) { cfg.Dir = dir })
	if clock.ppm != -12.346 {
		t.Errorf("the clock runs at %v ppm", clock.ppm)
	}
	for _, bad := range []string{"", "nonsense", "600", "NaN", strings.Repeat("1", 1000)} {
		if err := os.WriteFile(filepath.Join(dir, driftFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readDrift(dir); err == nil || !strings.Contains(err.Error(), driftFile) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Servers: make([]string, MaxServers+1)}, "at most 8"},
		{Config{Servers: []string{"a b"}}, "no host name"},
		{Config{Servers: []string{""}}, "no host name"},
		{Config{Servers: []string{"host:0"}}, "1 to 65535"},
		{Config{Servers: []string{"a:b:c"}}, "HOST:PORT"},
		{Config{Poll: time.Second}, "16s to"},
	} {
		if _, err := Open(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
	for _, good := range []string{"0.debian.pool.ntp.org", "10.0.0.1", "10.0.0.1:124", "::1", "[fe80::1]:123", "host"} {
		if err := CheckServer(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}
