package ntp

import "time"

// Status is what the service knows and does, for people.
type Status struct {
	Init        bool   // this node holds init: it serves
	Disciplined bool   // the clock is ours to change
	Why         string // if not, why
	Source      string // whom the clock follows; "local" on an init node without servers, "" none
	Refused     string // why there is no source although servers are asked
	Stratum     uint8  // of this clock; 16 is unsynchronised

	Offset     time.Duration // to be added to this clock, as of Updated
	Delay      time.Duration // of the round trip to the source
	Jitter     time.Duration // of its samples
	Dispersion time.Duration // bound of the error of this clock
	Frequency  float64       // correction in force, parts per million
	Updated    time.Time     // zero: never

	Serving    bool   // requests are answered
	ServeError string // if not, on an init node, why
	Servers    []ServerStatus
}

// ServerStatus is one server that is asked.
type ServerStatus struct {
	Name     string
	Believed bool
	Reach    uint8 // one bit a round, the newest lowest
	Offset   time.Duration
	Delay    time.Duration
	Jitter   time.Duration
	Stratum  uint8
	Error    string // of the last round
}

// unsynchronised is the stratum of a clock that follows nothing (RFC 5905).
const unsynchronised = 16

// status describes the core; names are those of the servers.
func (d *discipline) status(now time.Duration, servers []*server) Status {
	s := Status{
		Refused: d.refused, Offset: d.offset, Jitter: d.jitter, Stratum: unsynchronised,
		Frequency: d.servo.freq * 1e6,
	}
	if d.synced {
		ref := d.serves(now)
		s.Source, s.Stratum, s.Delay, s.Dispersion = servers[d.source].name, ref.stratum, d.sample.Delay, ref.dispersion
	}
	for i, server := range servers {
		line := ServerStatus{Name: server.name, Believed: d.believed[i], Reach: d.filters[i].reach}
		if best, ok := d.filters[i].best(now); ok {
			line.Offset, line.Delay, line.Stratum = best.Offset, best.Delay, best.Stratum
			line.Jitter = d.filters[i].jitter(best)
		}
		if server.err != nil {
			line.Error = server.err.Error()
		}
		s.Servers = append(s.Servers, line)
	}
	return s
}
