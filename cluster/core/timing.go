package core

import (
	"time"

	"ssi/internal/errno"
)

// Timing is one consistent set of the cluster's times; all nodes of a cluster
// use the same.
type Timing struct {
	Heartbeat   time.Duration // between the leader's rounds
	Election    time.Duration // silence after which a voter looks for another leader
	Step        time.Duration // between the campaigns of voters of different rank; more than a message takes
	NodeLease   time.Duration // how long a node serves after the hello that was granted
	LeaderLease time.Duration // silence after which the leader declares a node dead
	VoterGrace  time.Duration // absence after which a voter is replaced
}

// leaderHolds is how much of Election the leader relies on; the rest is the
// margin for clock drift between leader and voters.
func (t Timing) leaderHolds() time.Duration { return t.Election / 10 * 9 }

// Check reports a contradiction between the times.
func (t Timing) Check() error {
	switch {
	case t.Heartbeat <= 0 || t.Step <= 0 || t.VoterGrace <= 0:
		return errno.New(errno.Invalid, "timing", 0, "all times must be positive")
	case t.Election < 5*t.Heartbeat:
		return errno.New(errno.Invalid, "timing", 0, "the election timeout must be at least 5 heartbeats")
	case t.NodeLease < 2*t.Election:
		return errno.New(errno.Invalid, "timing", 0, "the node lease must be at least 2 election timeouts, or a failover would fence nodes")
	case t.LeaderLease < t.NodeLease+t.NodeLease/20:
		return errno.New(errno.Invalid, "timing", 0, "the leader must wait at least 5%% longer than the node lease")
	}
	return nil
}

// TimingFor is the timing profile of that name: "fast" (one switch, busy
// machines excluded), "lan" (the default; also for ""), or "wan".
func TimingFor(name string) (Timing, error) {
	switch name {
	case "fast":
		return Timing{
			Heartbeat: 30 * time.Millisecond, Election: 400 * time.Millisecond, Step: 20 * time.Millisecond,
			NodeLease: time.Second, LeaderLease: 1300 * time.Millisecond, VoterGrace: 10 * time.Second,
		}, nil
	case "lan", "":
		return Timing{
			Heartbeat: 200 * time.Millisecond, Election: time.Second, Step: 40 * time.Millisecond,
			NodeLease: 3 * time.Second, LeaderLease: 3500 * time.Millisecond, VoterGrace: time.Minute,
		}, nil
	case "wan":
		return Timing{
			Heartbeat: 500 * time.Millisecond, Election: 5 * time.Second, Step: 300 * time.Millisecond,
			NodeLease: 12 * time.Second, LeaderLease: 14 * time.Second, VoterGrace: 5 * time.Minute,
		}, nil
	}
	return Timing{}, errno.New(errno.Invalid, "timing", 0, "no profile %q; there are fast, lan and wan", name)
}
