package ntp

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// simClock is a clock that drifts, as the kernel's does: the frequency correction
// acts at once, the rest is slewed at slewRate.
type simClock struct {
	ahead float64 // seconds before true time
	drift float64 // seconds a second
	freq  float64
	slew  float64 // seconds left
	back  int     // steps backwards
	steps int
}

func (c *simClock) run(dt float64) {
	move := min(max(c.slew, -slewRate*dt), slewRate*dt)
	c.slew -= move
	c.ahead += move + (c.drift+c.freq)*dt
}

func (c *simClock) do(a Action) {
	if !a.Apply {
		return
	}
	c.freq = a.Frequency / 1e6
	c.slew = a.Slew.Seconds()
	if a.Step != 0 {
		c.steps++
		if a.Step < 0 {
			c.back++
		}
		c.ahead += a.Step.Seconds()
		c.slew = 0
	}
}

// simServer is a server and the way to it.
type simServer struct {
	ahead      float64 // seconds before true time
	base       float64 // delay of one way, seconds
	jitter     float64 // mean of what queues add to it
	asymmetric float64 // what the way back takes longer
	loss       float64 // share of lost packets
	down       bool
}

func (s simServer) ask(rng *rand.Rand, c *simClock, now time.Duration) []Sample {
	if s.down || rng.Float64() < s.loss {
		return nil
	}
	there := s.base + rng.ExpFloat64()*s.jitter
	back := s.base + rng.ExpFloat64()*s.jitter + s.asymmetric
	offset := (s.ahead - c.ahead) + (there-back)/2
	return []Sample{{At: now, Offset: seconds(offset), Delay: seconds(there + back), RootDispersion: time.Millisecond, Stratum: 2}}
}

// sim runs a core against servers.
type sim struct {
	t       *testing.T
	rng     *rand.Rand
	d       *discipline
	clock   simClock
	servers []simServer
	now     time.Duration
	worst   float64 // offset from true time since reset, seconds
}

func newSim(t *testing.T, seed uint64, d *discipline, servers ...simServer) *sim {
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 1)), d: d, servers: servers}
	d.follow(len(servers))
	return s
}

// runFor lets rounds happen each poll.
func (s *sim) runFor(d, poll time.Duration) {
	for end := s.now + d; s.now < end; {
		answers := make([][]Sample, len(s.servers))
		for i, server := range s.servers {
			answers[i] = server.ask(s.rng, &s.clock, s.now)
		}
		s.clock.do(s.d.round(s.now, answers))
		for next := s.now + poll; s.now < next; s.now += time.Second {
			s.clock.run(1)
			s.clock.drift += s.rng.NormFloat64() * 1e-9 // temperature
			s.worst = max(s.worst, abs(s.clock.ahead))
		}
	}
}

func abs(x float64) float64 { return max(x, -x) }

// stays checks that the clock is right from here on.
func (s *sim) stays(d, poll time.Duration, limit float64) {
	s.t.Helper()
	s.worst = 0
	s.runFor(d, poll)
	if s.worst > limit {
		s.t.Errorf("up to %.3f ms off, more than %.3f; frequency %.3f, drift %.3f ppm", s.worst*1e3, limit*1e3, s.clock.freq*1e6, s.clock.drift*1e6)
	}
}

const lanPoll = 8 * time.Second

func lan() simServer { return simServer{base: 50e-6, jitter: 100e-6, loss: 0.02} }

// A node that follows init is right within a millisecond, whatever its crystal
// does, and stays so.
func TestConverges(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			d := newDiscipline(false, true, 500*time.Millisecond, 0, false)
			s := newSim(t, seed, d, lan())
			s.clock.drift = (s.rng.Float64() - 0.5) * 400e-6
			s.clock.ahead = (s.rng.Float64() - 0.5) * 1e6
			s.runFor(16*time.Second, 2*time.Second)
			s.runFor(4*time.Minute, lanPoll)
			s.stays(2*time.Hour, lanPoll, 1e-3)
			if s.clock.steps != 1 {
				t.Errorf("%d steps, one at boot was due", s.clock.steps)
			}
		})
	}
}

// Over noisy ways the first minutes are good, too: the frequency is not guessed
// from a few answers.
func TestFirstMinutes(t *testing.T) {
	for _, c := range []struct {
		name   string
		server simServer
		poll   time.Duration
		limit  float64 // of 19 clocks of 20
	}{
		{"machines of a loaded computer", simServer{base: 300e-6, jitter: 500e-6}, lanPoll, 1e-3},
		{"internet", simServer{base: 10e-3, jitter: 1e-3}, 64 * time.Second, 4e-3},
	} {
		const seeds = 200
		bad := 0
		for seed := range uint64(seeds) {
			s := newSim(t, seed, newDiscipline(false, true, 500*time.Millisecond, 0, false), c.server)
			s.clock.drift, s.clock.ahead = 20e-6, 5
			s.runFor(2*time.Second, 2*time.Second)
			s.worst = 0
			s.runFor(14*time.Second, 2*time.Second)
			s.runFor(10*time.Minute, c.poll)
			if s.worst > c.limit {
				bad++
			}
		}
		if bad > seeds/20 {
			t.Errorf("%s: %d of %d clocks are more than %.1f ms off", c.name, bad, seeds, c.limit*1e3)
		}
	}
}

// Without the right to step, an offset below the threshold is slewed and the
// frequency is not led astray by it.
func TestSlews(t *testing.T) {
	for seed := range uint64(50) {
		d := newDiscipline(false, false, 500*time.Millisecond, 0, false)
		s := newSim(t, seed, d, lan())
		s.clock.drift, s.clock.ahead = 40e-6, 0.45
		s.runFor(25*time.Minute, lanPoll)
		s.stays(time.Hour, lanPoll, 1e-3)
		if s.clock.steps != 0 {
			t.Errorf("seed %d: the clock was stepped", seed)
		}
	}
}

// Three servers over the internet, one lies.
func TestLyingServer(t *testing.T) {
	for seed := range uint64(50) {
		d := newDiscipline(false, true, 500*time.Millisecond, 0, false)
		wan := simServer{base: 10e-3, jitter: 1e-3, loss: 0.1}
		liar := wan
		liar.ahead = 0.3
		s := newSim(t, seed, d, liar, wan, wan)
		s.clock.drift, s.clock.ahead = -30e-6, 5
		s.runFor(16*time.Second, 2*time.Second)
		s.runFor(2*time.Hour, 64*time.Second)
		s.stays(6*time.Hour, 64*time.Second, 4e-3)
		if d.believed[0] || !d.synced {
			t.Errorf("seed %d: believed %v", seed, d.believed)
		}
	}
}

// Two servers that contradict each other are both refused, and the clock goes on
// as it was.
func TestContradiction(t *testing.T) {
	d := newDiscipline(false, false, 500*time.Millisecond, 0, false)
	s := newSim(t, 1, d, lan(), simServer{base: 50e-6, ahead: 0.2})
	s.runFor(time.Minute, lanPoll)
	if d.synced || abs(s.clock.ahead) > 1e-6 || d.refused == "" {
		t.Errorf("synced %v, clock %v, why %q", d.synced, s.clock.ahead, d.refused)
	}
}

// After a failover the clock is slewed to the new init's, which is a little off.
func TestFailover(t *testing.T) {
	for seed := range uint64(50) {
		d := newDiscipline(false, true, 500*time.Millisecond, 0, false)
		s := newSim(t, seed, d, lan())
		s.clock.drift, s.clock.ahead = 80e-6, -3
		s.runFor(10*time.Minute, lanPoll)
		s.servers[0].down = true
		s.runFor(time.Minute, lanPoll)
		d.follow(1)
		s.servers[0] = lan()
		s.stays(time.Hour, lanPoll, 1e-3)
		if s.clock.steps != 1 {
			t.Errorf("seed %d: %d steps", seed, s.clock.steps)
		}
	}
}

// An asymmetric way cannot be seen: the error is half of the asymmetry, not more.
func TestAsymmetry(t *testing.T) {
	d := newDiscipline(false, true, 500*time.Millisecond, 0, false)
	server := lan()
	server.asymmetric = 1e-3
	s := newSim(t, 7, d, server)
	s.runFor(20*time.Minute, lanPoll)
	s.stays(time.Hour, lanPoll, 1e-3)
}

// Steps after boot need more than one witness, and say when time goes back.
func TestStepLater(t *testing.T) {
	d := newDiscipline(false, true, 500*time.Millisecond, 0, false)
	s := newSim(t, 3, d, lan())
	s.runFor(5*time.Minute, lanPoll)
	// One wild answer is not enough.
	act := d.round(s.now, [][]Sample{{{At: s.now, Offset: 20 * time.Second, Delay: 1, Stratum: 2}}})
	if act.Apply {
		t.Fatalf("one answer led to %+v", act)
	}
	d.follow(1)
	s.clock.ahead += 2
	var note string
	for range 60 {
		act := d.round(s.now, [][]Sample{s.servers[0].ask(s.rng, &s.clock, s.now)})
		s.clock.do(act)
		s.clock.run(8)
		s.now += lanPoll
		note += act.Note
	}
	if s.clock.back != 1 || abs(s.clock.ahead) > 1e-3 {
		t.Errorf("%d steps back, %.3f ms off", s.clock.back, s.clock.ahead*1e3)
	}
	if want := "it went backwards under running programs"; !strings.Contains(note, want) {
		t.Errorf("note %q lacks %q", note, want)
	}
	// Never by more than panicOffset.
	s.clock.ahead = -5000
	d.follow(1)
	s.runFor(5*time.Minute, lanPoll)
	if s.clock.ahead > -4999 || !d.panicking {
		t.Errorf("moved to %v", s.clock.ahead)
	}
}

// Who only observes never acts, and still knows the offset.
func TestObserve(t *testing.T) {
	d := newDiscipline(true, true, 500*time.Millisecond, 0, false)
	s := newSim(t, 3, d, lan())
	s.clock.ahead = 4
	s.runFor(time.Minute, lanPoll)
	if abs(s.clock.ahead-4) > 1e-6 || s.clock.freq != 0 || s.clock.slew != 0 {
		t.Errorf("the clock was touched: %+v", s.clock)
	}
	if (d.offset + 4*time.Second).Abs() > time.Millisecond {
		t.Errorf("offset %v, want -4s", d.offset)
	}
}

// A known frequency is kept from the first second on.
func TestKnownFrequency(t *testing.T) {
	for seed := range uint64(50) {
		d := newDiscipline(false, true, 500*time.Millisecond, -120, true)
		s := newSim(t, seed, d, lan())
		s.clock.drift, s.clock.freq, s.clock.ahead = 120e-6, -120e-6, 10
		s.runFor(20*time.Second, 2*time.Second)
		s.stays(time.Hour, lanPoll, 1e-3)
	}
}

// An init node without servers is its own reference; with one it passes on what
// it has.
func TestServes(t *testing.T) {
	d := newDiscipline(false, true, 0, 0, false)
	d.follow(0)
	d.round(0, nil)
	if r := d.serves(time.Hour); r.stratum != LocalStratum || r.source != -1 || r.dispersion != 0 {
		t.Errorf("local: %+v", r)
	}
	s := newSim(t, 1, d, lan())
	s.runFor(time.Minute, lanPoll)
	if r := d.serves(s.now); r.stratum != 3 || r.source != 0 || r.dispersion < time.Millisecond || r.dispersion > 10*time.Millisecond {
		t.Errorf("with a server: %+v", r)
	}
	// Silent for eight rounds, it is nobody's server any more.
	s.servers[0].down = true
	s.runFor(9*lanPoll, lanPoll)
	if r := d.serves(s.now); r.stratum != LocalStratum {
		t.Errorf("after silence: %+v", r)
	}
}
