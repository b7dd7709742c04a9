package machine

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"ssi/internal/api"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	mine, other := bytes.Repeat([]byte{1}, keySize), bytes.Repeat([]byte{2}, keySize)
	// good is a machine that claimed its boot and gets a credential.
	good := func() question {
		return question{
			req: request{MAC: mac(1), Key: mine, Boot: "b"}, remote: ip("10.0.0.2"), now: now, node: api.Down,
			neighbour: mac(1), near: true,
			machine: &Machine{MACs: []MAC{mac(1), mac(2)}, Node: 2, Name: "node2", Standing: Known},
			boot:    Boot{At: now.Add(-time.Minute), IP: ip("10.0.0.2"), Key: mine, ID: "b"},
		}
	}
	given := func(q *question) {
		q.boot.First, q.boot.Sealed, q.boot.Granted, q.boot.Expires = now, []byte("x"), 2, now.Add(time.Second)
	}
	for _, c := range []struct {
		name    string
		change  func(*question)
		verdict verdict
		why     string
		alarm   bool
	}{
		{"all is well", func(*question) {}, verdictGrant, "", false},
		{"by its second MAC", func(q *question) { q.neighbour = mac(2) }, verdictGrant, "", false},
		{"not on our segment", func(q *question) { q.near, q.neighbour = false, MAC{} }, verdictGrant, "", false},
		{"unknown", func(q *question) { q.machine = nil }, verdictWait, "does not know this machine (52:54:00:00:00:01)", false},
		{"denied", func(q *question) { q.machine.Standing = Denied }, verdictRefuse, "an operator denied", false},
		{"pending", func(q *question) { q.machine.Standing = Pending }, verdictWait, "waits for approval", false},
		{"first request", func(q *question) { q.boot.Key = nil }, verdictClaim, "", false},
		{"first request of a pending machine", func(q *question) { q.boot.Key, q.machine.Standing = nil, Pending }, verdictClaim, "", false},
		{"never booted", func(q *question) { q.boot = Boot{} }, verdictAgain, "has not booted this machine", false},
		{"end of the window", func(q *question) { q.boot.Key, q.boot.At = nil, now.Add(-Window) }, verdictClaim, "", false},
		{"after the window", func(q *question) { q.boot.Key, q.boot.At = nil, now.Add(-Window-1) }, verdictAgain, "within the last 5m", false},
		{"asked in the window, approved later", func(q *question) { q.boot.At = now.Add(-10 * time.Hour) }, verdictGrant, "", false},
		{"another address", func(q *question) { q.remote = ip("10.0.0.9") }, verdictRefuse, "came from 10.0.0.9", true},
		{"another address, first request", func(q *question) { q.remote, q.boot.Key = ip("10.0.0.9"), nil }, verdictRefuse, "came from 10.0.0.9", true},
		{"another MAC with the address", func(q *question) { q.neighbour = mac(9) }, verdictRefuse, "is used by 52:54:00:00:00:09", true},
		{"another key", func(q *question) { q.req.Key = other }, verdictRefuse, "with another key", true},
		{"another key after the credential", func(q *question) { given(q); q.req.Key = other }, verdictRefuse, "with another key", true},
		{"the same again", given, verdictSame, "", false},
		{"the same again while it joins", func(q *question) { given(q); q.node = api.ComingUp }, verdictSame, "", false},
		{"expired unused", func(q *question) { given(q); q.boot.Expires = now }, verdictGrant, "", false},
		{"the number was changed", func(q *question) { given(q); q.machine.Node = 3 }, verdictGrant, "", false},
		{"another kernel of the same key", func(q *question) { given(q); q.req.Boot = "c" }, verdictGrant, "", false},
		{"long after its credential", func(q *question) { given(q); q.boot.First, q.boot.Expires = now.Add(-RenewWindow-1), now.Add(-1) }, verdictAgain, "had its credential 5m0s ago", false},
		{"its node is still up", func(q *question) { q.node = api.Up }, verdictWait, "node 2 is still UP", false},
	} {
		q := good()
		c.change(&q)
		d := decide(q)
		if d.verdict != c.verdict || !strings.Contains(d.why, c.why) || (d.alarm != "") != c.alarm {
			t.Errorf("%s: %+v", c.name, d)
		}
		if d.why == "" && (d.verdict == verdictWait || d.verdict == verdictRefuse || d.verdict == verdictAgain) {
			t.Errorf("%s: no reason", c.name)
		}
	}
}

func TestBoots(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	b, ok := Boot{}.booted(ip("10.0.0.2"), now)
	if !ok || !b.At.Equal(now) {
		t.Errorf("first: %+v", b)
	}
	if _, ok := b.booted(ip("10.0.0.2"), now.Add(sameBoot-1)); ok {
		t.Error("a further file of a boot is written down")
	}
	b.Key, b.Sealed, b.Alarm = []byte{1}, []byte{2}, "x"
	again, ok := b.booted(ip("10.0.0.2"), now.Add(time.Second))
	if !ok || again.Key != nil || again.Sealed != nil || again.Alarm != "" {
		t.Errorf("after a reset: %+v, %v", again, ok)
	}
	if _, ok := (Boot{}).leased(ip("10.0.0.3")); ok {
		t.Error("a lease begins a boot")
	}
	if moved, ok := b.leased(ip("10.0.0.3")); !ok || moved.IP != ip("10.0.0.3") || moved.Key == nil {
		t.Errorf("another address: %+v", moved)
	}
	p, _ := b.progress(progress{Phase: "join", Text: "a"}, now)
	p, ok = p.progress(progress{Phase: "join", Text: "b"}, now.Add(time.Hour))
	if !ok || !p.PhaseAt.Equal(now) || p.Text != "b" {
		t.Errorf("the same phase: %+v", p)
	}
	if _, ok := p.progress(progress{Phase: "join", Text: "b"}, now); ok {
		t.Error("no news is written down")
	}
}

func TestInfo(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	booted := Boot{At: now.Add(-time.Minute), IP: ip("10.0.0.2"), Phase: "join", PhaseAt: now.Add(-time.Second), Text: "t", Alarm: "a"}
	for _, c := range []struct {
		standing Standing
		boot     Boot
		node     api.State
		want     api.MachineState
		seen     time.Time
	}{
		{Known, Boot{}, api.NeverUp, api.MachineKnown, time.Time{}},
		{Known, booted, api.NeverUp, api.MachineBooting, now.Add(-time.Second)},
		{Known, booted, api.ComingUp, api.MachineBooting, now.Add(-time.Second)},
		{Known, booted, api.Up, api.MachineUp, now},
		{Known, Boot{At: now.Add(-time.Hour)}, api.Down, api.MachineKnown, now.Add(-time.Hour)},
		{Pending, booted, "", api.MachinePending, now.Add(-time.Second)},
		{Denied, booted, "", api.MachineDenied, now.Add(-time.Second)},
	} {
		info := infoOf(&Machine{MACs: []MAC{mac(1)}, Standing: c.standing}, c.boot, c.node, now)
		if info.State != c.want || !info.LastSeen.Equal(c.seen) {
			t.Errorf("%+v: %s, seen %s", c, info.State, info.LastSeen)
		}
	}
}

func TestRates(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	var b bucket
	n := 0
	for range 10 {
		if b.take(now, 3, 1) {
			n++
		}
	}
	if n != 3 || !b.take(now.Add(time.Second), 3, 1) || b.take(now.Add(time.Second), 3, 1) || b.take(now, 3, 1) {
		t.Errorf("a burst of %d, and then not one a second", n)
	}
	r := rates{}
	for i := range maxRates + 10 {
		r.take(mac(i+1), now.Add(time.Duration(i)), 1, 1)
	}
	if len(r) != maxRates || r[mac(1)] != nil || r[mac(maxRates+10)] == nil {
		t.Errorf("%d are watched", len(r))
	}
}
