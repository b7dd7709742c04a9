package ntp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultStep is from which offset on a running clock is stepped.
	DefaultStep = 500 * time.Millisecond
	// DefaultPoll is how often an init node asks its servers. Public ones want
	// nobody to ask more often.
	DefaultPoll = 64 * time.Second
	// MinPoll is the shortest that is taken.
	MinPoll = 16 * time.Second
	// MaxPoll is the longest that is taken.
	MaxPoll = 1024 * time.Second

	nodePoll   = 8 * time.Second // how often the other nodes ask init
	fastPoll   = 2 * time.Second // between the first rounds with new servers
	fastRounds = 8
	// saveEvery is how often the drift is saved, if it changed by saveChange.
	saveEvery  = time.Hour
	saveChange = 0.1 // parts per million
)

// Config is how the service of a node works.
type Config struct {
	Servers []string      // whom an init node asks, HOST or HOST:PORT; none: its own clock is the reference
	Step    time.Duration // 0 is DefaultStep; negative: never step after boot
	Poll    time.Duration // 0 is DefaultPoll

	Discipline bool   // change the clock; see MayDiscipline
	Why        string // if not, why, for Status
	Boot       bool   // the machine was just switched on: the first update may step

	Serve  bool                  // an init node gives the time to others
	Dir    string                // holds the drift file; "": none
	Listen []netip.AddrPort      // where an init node serves; none: on all, good for one network only: an answer leaves from the address that the route chooses
	Allow  func(netip.Addr) bool // whom it answers; nil: nobody. Called from other goroutines
	Log    *slog.Logger

	Clock Clock            // nil: the system's
	Now   func() time.Time // of Clock; nil: the system's
}

// Role is what a node has to do for the time of the cluster.
type Role struct {
	Init bool           // this node holds init
	Addr netip.AddrPort // else: where init serves; invalid while nobody holds it
}

// Service keeps the clock of a node right. Its methods may be called from any
// goroutine.
type Service struct {
	cfg     Config
	client  client
	start   time.Time
	core    *discipline // run's
	saved   float64     // the drift in the file; run's
	ref     atomic.Pointer[answerer]
	changed chan struct{} // role was set
	synced  chan struct{} // closed by the first update
	cancel  context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	role   Role
	status Status
}

// Open starts the service; until Follow it asks and answers nobody. Bad settings
// are an error, a clock or a socket that fails later is in Status.
func Open(cfg Config) (*Service, error) {
	if len(cfg.Servers) > MaxServers {
		return nil, fmt.Errorf("%d time servers; at most %d are allowed", len(cfg.Servers), MaxServers)
	}
	for _, server := range cfg.Servers {
		if err := CheckServer(server); err != nil {
			return nil, fmt.Errorf("time server %w", err)
		}
	}
	if cfg.Poll == 0 {
		cfg.Poll = DefaultPoll
	}
	if cfg.Poll < MinPoll || cfg.Poll > MaxPoll {
		return nil, fmt.Errorf("ask time servers every %v: it is %v to %v", cfg.Poll, MinPoll, MaxPoll)
	}
	if cfg.Step == 0 {
		cfg.Step = DefaultStep
	}
	return open(cfg), nil
}

func open(cfg Config) *Service {
	if cfg.Clock == nil {
		cfg.Clock = SystemClock()
	}
	if cfg.Allow == nil {
		cfg.Allow = func(netip.Addr) bool { return false }
	}
	if len(cfg.Listen) == 0 {
		cfg.Listen = []netip.AddrPort{netip.AddrPortFrom(netip.Addr{}, Port)}
	}
	s := &Service{
		cfg: cfg, start: time.Now(), saved: math.NaN(), changed: make(chan struct{}, 1),
		synced: make(chan struct{}), done: make(chan struct{}),
	}
	s.client = client{now: cfg.Now, mono: s.mono}
	var ppm float64
	known := false
	if cfg.Dir != "" {
		var err error
		if ppm, known, err = readDrift(cfg.Dir); err != nil {
			cfg.Log.Warn("clock", "err", err)
		}
		if known {
			s.saved = ppm
		}
	}
	s.core = newDiscipline(!cfg.Discipline, cfg.Boot, max(cfg.Step, 0), ppm, known)
	s.core.follow(0)
	if known && cfg.Discipline {
		s.do(Action{Apply: true, Frequency: ppm})
	}
	s.status = Status{Disciplined: s.cfg.Discipline, Why: s.cfg.Why, Stratum: unsynchronised}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.run(ctx)
	return s
}

// Close stops it, waits, and saves the drift. The clock keeps its frequency.
func (s *Service) Close() error {
	s.cancel()
	<-s.done
	return s.saveDrift()
}

// Follow tells whom to follow from now on. The same role again changes nothing.
func (s *Service) Follow(r Role) {
	s.mu.Lock()
	same := s.role == r
	s.role = r
	s.mu.Unlock()
	if same {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default: // run will look anyway
	}
}

// Synchronised is closed when the clock was first compared with a source, and set
// if it is ours. A node that boots waits for it, for a limited time, before it
// becomes UP. On an init node without servers it stays open: nothing is to wait for.
func (s *Service) Synchronised() <-chan struct{} { return s.synced }

// Status is the state after the last round.
func (s *Service) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Service) mono() time.Duration { return time.Since(s.start) }

// run owns the core, the clock, the servers and the sockets.
func (s *Service) run(ctx context.Context) {
	defer close(s.done)
	var role Role
	var servers []*server
	var updated time.Time
	var serveErr error
	sockets := &sockets{service: s}
	defer sockets.close()
	rounds, save := 0, s.mono()+saveEvery
	timer := time.NewTimer(nodePoll)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
			s.mu.Lock()
			role = s.role
			s.mu.Unlock()
			servers, rounds = s.serversOf(role), 0
			s.core.follow(len(servers))
			if !role.Init {
				sockets.close()
			}
		case <-timer.C:
		}
		before := s.core.updated
		if len(servers) > 0 {
			answers := s.client.round(ctx, servers)
			if ctx.Err() != nil {
				return
			}
			s.do(s.core.round(s.mono(), answers))
		}
		if s.core.updated != before {
			updated = wallTime(s.cfg.Now)
			s.announce()
		}
		s.publish(servers, updated)
		serveErr = nil
		if role.Init && s.cfg.Serve {
			serveErr = sockets.open()
		}
		s.report(role, servers, updated, serveErr)
		if s.mono() >= save {
			save = s.mono() + saveEvery
			if err := s.saveDrift(); err != nil {
				s.cfg.Log.Warn("clock", "err", err)
			}
		}
		rounds++
		timer.Reset(s.pause(role, rounds))
	}
}

// pause is the time to the next round.
func (s *Service) pause(role Role, rounds int) time.Duration {
	switch {
	case rounds < fastRounds:
		return fastPoll
	case role.Init:
		return s.cfg.Poll
	}
	return nodePoll
}

// serversOf is whom to ask in a role.
func (s *Service) serversOf(role Role) (servers []*server) {
	switch {
	case role.Init:
		for _, name := range s.cfg.Servers {
			servers = append(servers, &server{name: name})
		}
	case role.Addr.IsValid():
		servers = []*server{{name: role.Addr.String(), addr: role.Addr, burst: burst}}
	}
	return servers
}

// do carries an action out. A clock that refuses is only observed from then on.
func (s *Service) do(a Action) {
	if a.Note != "" {
		s.cfg.Log.Warn("clock", "note", a.Note)
	}
	if !a.Apply {
		return
	}
	var err error
	if a.Step != 0 {
		err = s.cfg.Clock.Step(a.Step)
	}
	err = errors.Join(err, s.cfg.Clock.Adjust(a.Frequency, a.Slew))
	if err == nil {
		return
	}
	s.cfg.Log.Error("clock: it is only observed from now on", "err", err)
	s.core.observe = true
	s.cfg.Discipline, s.cfg.Why = false, err.Error()
}

func (s *Service) announce() {
	select {
	case <-s.synced:
	default:
		close(s.synced)
	}
}

// publish tells the listeners what the clock is worth.
func (s *Service) publish(servers []*server, updated time.Time) {
	now := s.mono()
	a := &answerer{reference: s.core.serves(now), taken: now, when: updated}
	var source netip.Addr
	if a.source >= 0 {
		source = servers[a.source].addr.Addr()
	}
	a.id = referenceID(source)
	s.ref.Store(a)
}

// report makes the status that others see.
func (s *Service) report(role Role, servers []*server, updated time.Time, serveErr error) {
	status := s.core.status(s.mono(), servers)
	status.Init, status.Disciplined, status.Why, status.Updated = role.Init, s.cfg.Discipline, s.cfg.Why, updated
	if role.Init && !s.core.synced {
		ref := s.core.serves(s.mono())
		status.Source, status.Stratum, status.Dispersion = "local", ref.stratum, ref.dispersion
	}
	if role.Init && s.cfg.Serve {
		status.Serving = serveErr == nil
		if serveErr != nil {
			status.ServeError = serveErr.Error()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if status.ServeError != "" && s.status.ServeError == "" {
		s.cfg.Log.Warn("clock", "err", serveErr)
	}
	if status.Source != s.status.Source {
		s.cfg.Log.Info("clock", "source", status.Source, "stratum", status.Stratum, "offset", status.Offset, "refused", status.Refused)
	}
	s.status = status
}

// saveDrift writes the frequency, when it is known and not what the file says.
func (s *Service) saveDrift() error {
	ppm := s.core.servo.freq * 1e6
	if s.cfg.Dir == "" || !s.cfg.Discipline || s.core.servo.n < 2*fastRounds || math.Abs(ppm-s.saved) < saveChange {
		return nil
	}
	if err := writeDrift(s.cfg.Dir, ppm); err != nil {
		return err
	}
	s.saved = ppm
	return nil
}

// sockets are the listeners of an init node. They belong to run.
type sockets struct {
	service   *Service
	listeners []*listener
}

// open binds what is not bound and starts to serve; all addresses or none. It is
// called each round, so that one that is taken or not there yet is tried again.
func (k *sockets) open() error {
	for _, l := range k.listeners {
		select {
		case <-l.done: // it gave up
			k.close()
		default:
		}
	}
	if len(k.listeners) > 0 {
		return nil
	}
	s := k.service
	for _, addr := range s.cfg.Listen {
		conn, err := listen(addr)
		if err != nil {
			k.close()
			return err
		}
		l := &listener{conn: conn, allow: s.cfg.Allow, ref: s.ref.Load, now: s.cfg.Now, mono: s.mono, done: make(chan struct{})}
		k.listeners = append(k.listeners, l)
		go l.serve()
	}
	return nil
}

// close ends the listeners and waits for them.
func (k *sockets) close() {
	for _, l := range k.listeners {
		_ = l.conn.Close()
		<-l.done
	}
	k.listeners = nil
}
