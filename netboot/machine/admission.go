package machine

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"ssi/cluster/registry"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// The rates that machines, and whoever pretends to be one, may ask at: so many at
// once, so many a second.
const (
	admitBurst, admitRate       = 64, 32 // requests for admission, all together
	machineBurst, machineRate   = 8, 2   // of one machine
	progressBurst, progressRate = 64, 32 // phases, all together
	unknownBurst, unknownRate   = 32, 2  // unknown machines that are written down
	alarmBurst, alarmRate       = 8, 0.2 // alarms
)

// Admission decides who may boot and admits machines, on the init node.
type Admission struct {
	table      *Table
	neighbours Neighbours
	log        *slog.Logger
	alarm      func(text string)

	wake chan struct{} // of capacity 1: there are events

	mu       sync.Mutex
	events   map[MAC]event
	machines rates
	phases   rates
	admits   bucket
	progress bucket
	unknown  bucket
	alarms   bucket
}

// event is what is to be written down about a machine.
type event struct {
	asked  bool
	arch   string
	booted netip.Addr // it was sent a loader or kernel, at this address
	leased netip.Addr
}

// NewAdmission makes the admission of a node. alarm is called with what looks
// like an attack, besides the log and the table; it must not wait.
func NewAdmission(t *Table, n Neighbours, log *slog.Logger, alarm func(text string)) *Admission {
	return &Admission{table: t, neighbours: n, log: log, alarm: alarm, wake: make(chan struct{}, 1),
		events: map[MAC]event{}, machines: rates{}, phases: rates{}}
}

// Answer is what a server says to a machine that wants to boot.
type Answer struct {
	Boot    bool     // send it what it asks for
	Machine *Machine // what is known of it; nil if nothing is
	Why     string   // it is not booted: a line for its console
}

// Ask decides whether a machine that asks (DHCP, TFTP, HTTP) is booted. It does
// not wait. An unknown one is written down; it is known to all a moment later, and
// booted when it asks again if the next ones are added. arch is its architecture
// if it told, else "".
func (a *Admission) Ask(mac MAC, arch string) Answer {
	book, err := a.table.Book()
	if err != nil {
		return Answer{Why: "the cluster cannot read its table of machines: " + err.Error()}
	}
	m := book.Lookup(mac)
	switch {
	case m != nil && m.Standing == Known:
		return Answer{Boot: true, Machine: m}
	case m != nil && m.Standing == Denied:
		return Answer{Machine: m, Why: "an operator denied this machine (" + mac.String() + ")"}
	}
	a.queue(mac, func(e *event) { e.asked, e.arch = true, arch })
	return Answer{Machine: m, Why: "waits for approval; on any node: ssi node approve " + mac.String()}
}

// Booted notes that our servers sent a machine its loader or kernel: with that a
// boot begins. It does not wait.
func (a *Admission) Booted(mac MAC, ip netip.Addr) {
	a.queue(mac, func(e *event) { e.booted, e.leased = ip.Unmap(), netip.Addr{} })
}

// Leased notes the address that a machine got in the course of its boot. It does
// not wait.
func (a *Admission) Leased(mac MAC, ip netip.Addr) {
	a.queue(mac, func(e *event) { e.leased = ip.Unmap() })
}

// queue notes an event for Run; those of one machine become one. When there are
// too many the event is lost: the machine asks again.
func (a *Admission) queue(mac MAC, f func(*event)) {
	a.mu.Lock()
	e, ok := a.events[mac]
	if !ok && len(a.events) >= maxEvents {
		a.mu.Unlock()
		return
	}
	f(&e)
	a.events[mac] = e
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run writes down what the servers saw, until ctx ends.
func (a *Admission) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		}
		for {
			a.mu.Lock()
			var mac MAC
			var e event
			found := false
			for mac, e = range a.events {
				found = true
				break
			}
			a.mu.Unlock()
			if !found || ctx.Err() != nil {
				break
			}
			a.write(ctx, mac, e)
			a.mu.Lock()
			if a.events[mac] == e { // else there is news already
				delete(a.events, mac)
			}
			a.mu.Unlock()
		}
	}
}

// write writes one event down, until the deadline of one call.
func (a *Admission) write(ctx context.Context, mac MAC, e event) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if e.asked && a.mayWriteUnknown(mac) {
		if err := a.table.asked(ctx, mac, e.arch); err != nil && ctx.Err() == nil {
			a.log.Warn("an unknown machine asked, and was not written down", "op", "machine", "mac", mac.String(), "err", err)
		}
	}
	note := func(what string, f func(Boot) (Boot, bool)) {
		err := a.table.editBoot(ctx, mac, f)
		if err != nil && !errno.Is(err, errno.NotFound) && ctx.Err() == nil {
			a.log.Warn("a boot was not written down", "op", what, "mac", mac.String(), "err", err)
		}
	}
	if e.booted.IsValid() {
		note("booted", func(b Boot) (Boot, bool) { return b.booted(e.booted, a.table.now()) })
	}
	if e.leased.IsValid() {
		note("leased", func(b Boot) (Boot, bool) { return b.leased(e.leased) })
	}
}

// mayWriteUnknown limits how fast unknown machines change the table. One that
// waits is written down again only now and then.
func (a *Admission) mayWriteUnknown(mac MAC) bool {
	now := a.table.now()
	if book, err := a.table.Book(); err == nil && !book.next.open(now) {
		if m := book.Lookup(mac); m != nil && now.Sub(m.Asked) < time.Minute {
			return false
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unknown.take(now, unknownBurst, unknownRate)
}

// Admit answers POST PathAdmit. remote is the address the request came from.
func (a *Admission) Admit(ctx context.Context, remote netip.Addr, body []byte) (status int, reply []byte) {
	req, err := parseRequest(body)
	if err != nil {
		return reject(http.StatusBadRequest, stateDenied, "the request is malformed: "+err.Error())
	}
	now := a.table.now()
	a.mu.Lock()
	ok := a.admits.take(now, admitBurst, admitRate) && a.machines.take(req.MAC, now, machineBurst, machineRate)
	_, busy := a.events[req.MAC]
	a.mu.Unlock()
	if !ok {
		return reject(http.StatusTooManyRequests, stateWait, "too many requests; waits")
	}
	if busy { // its boot is not written down yet
		return reject(http.StatusOK, stateWait, "the cluster is noting this boot; waits")
	}
	d, sealed, err := a.admit(ctx, remote.Unmap(), req)
	if err != nil {
		a.log.Warn("a machine was not admitted", "op", "admit", "mac", req.MAC.String(), "peer", remote.String(), "err", err)
		return reject(http.StatusOK, stateWait, "the cluster cannot admit a node now: "+err.Error())
	}
	switch d.verdict {
	case verdictSame, verdictGrant:
		return http.StatusOK, mustJSON(answer{State: stateAdmitted, Sealed: sealed})
	case verdictAgain:
		return reject(http.StatusConflict, stateAgain, d.why)
	case verdictRefuse:
		return reject(http.StatusForbidden, stateDenied, d.why)
	}
	return reject(http.StatusOK, stateWait, d.why)
}

func reject(status int, state, why string) (int, []byte) {
	return status, mustJSON(answer{State: state, Why: printable(why, 2*maxText)})
}

func mustJSON(a answer) []byte {
	b, err := json.Marshal(a)
	if err != nil {
		panic("machine: an answer cannot be encoded: " + err.Error()) // no input reaches this
	}
	return b
}

// admit decides about a request and carries the decision out.
func (a *Admission) admit(ctx context.Context, remote netip.Addr, req request) (decision, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var fresh *credential // made in an earlier try that somebody was quicker than
	for range maxTries {
		view := a.table.reg.Stale()
		book, err := a.table.Book()
		if err != nil {
			return decision{}, nil, err
		}
		q := question{req: req, remote: remote, machine: book.Lookup(req.MAC), now: a.table.now()}
		mod := uint64(0)
		if q.machine != nil {
			q.node = a.table.cluster.State(q.machine.Node)
			if q.boot, mod, err = readBoot(view, q.machine.ID()); err != nil {
				return decision{}, nil, err
			}
			if q.neighbour, q.near, err = a.neighbours.Neighbour(remote); err != nil {
				return decision{}, nil, err
			}
		}
		d := decide(q)
		next := q.boot
		switch d.verdict {
		case verdictSame:
			return d, q.boot.Sealed, nil
		case verdictClaim:
			if _, err := seal(req, nil); err != nil {
				return decision{verdictRefuse, "the key of the request is none", ""}, nil, nil //nolint:nilerr // that is the answer
			}
			next.Key, next.ID = req.Key, req.Boot
		case verdictGrant:
			if fresh == nil || fresh.node != q.machine.Node {
				if fresh, err = a.credential(ctx, req, q.machine.Node); err != nil {
					return decision{}, nil, err
				}
			}
			next.Sealed, next.Expires, next.Granted, next.ID = fresh.sealed, fresh.expires, fresh.node, req.Boot
			if next.First.IsZero() {
				next.First = q.now
			}
		default:
			if q.machine == nil {
				a.queue(req.MAC, func(e *event) { e.asked = true })
			}
			a.report(ctx, req.MAC, d.alarm)
			return d, nil, nil
		}
		mid := q.machine.ID()
		checks := []*registry.Compare{registry.Check(keyMachine(mid), modOf(view, keyMachine(mid))), registry.Check(keyBoot(mid), mod)}
		_, err = a.table.reg.Txn(ctx, true, checks, registry.PutOp(keyBoot(mid), encode(next), 0))
		if err != nil && !errno.Is(err, errno.Exists) {
			return decision{}, nil, err
		}
		if err == nil && d.verdict == verdictGrant {
			a.log.Info("a machine is admitted", "op", "admit", "mac", req.MAC.String(), "node", fresh.node, "peer", remote.String())
			return d, next.Sealed, nil
		}
		if _, err := a.table.reg.View(ctx); err != nil { // wait until this node sees what was written
			return decision{}, nil, err
		}
	}
	return decision{}, nil, errno.New(errno.Unavailable, "admit", 0, "too many others write about %s at once", req.MAC)
}

// credential is a join file, sealed.
type credential struct {
	node    id.Node
	sealed  []byte
	expires time.Time
}

func (a *Admission) credential(ctx context.Context, req request, n id.Node) (*credential, error) {
	expires := a.table.now().Add(CredentialTTL)
	file, err := a.table.cluster.Credential(ctx, n, CredentialTTL)
	if err != nil {
		return nil, err
	}
	sealed, err := seal(req, file)
	return &credential{n, sealed, expires}, err
}

// report tells the operators what looks like an attack: in the log, in the table
// and to whoever asked to be told.
func (a *Admission) report(ctx context.Context, mac MAC, text string) {
	if text == "" {
		return
	}
	a.mu.Lock()
	ok := a.alarms.take(a.table.now(), alarmBurst, alarmRate)
	a.mu.Unlock()
	if !ok {
		return
	}
	a.log.Error("a request for admission was refused", "op", "admit", "mac", mac.String(), "err", text)
	a.alarm(text)
	err := a.table.editBoot(ctx, mac, func(b Boot) (Boot, bool) {
		changed := b.Alarm != text
		b.Alarm = text
		return b, changed
	})
	if err != nil {
		a.log.Warn("an alarm was not written down", "op", "admit", "mac", mac.String(), "err", err)
	}
}

// Progress answers POST PathProgress: a machine says which phase its boot is in.
func (a *Admission) Progress(ctx context.Context, remote netip.Addr, body []byte) (status int, reply []byte) {
	p, err := parseProgress(body)
	if err != nil {
		return reject(http.StatusBadRequest, stateDenied, "the request is malformed: "+err.Error())
	}
	now := a.table.now()
	a.mu.Lock()
	ok := a.progress.take(now, progressBurst, progressRate) && a.phases.take(p.MAC, now, machineBurst, machineRate)
	a.mu.Unlock()
	if !ok {
		return reject(http.StatusTooManyRequests, stateWait, "too many requests")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	foreign := false
	err = a.table.editBoot(ctx, p.MAC, func(b Boot) (Boot, bool) {
		if foreign = b.IP != remote.Unmap(); foreign {
			return b, false
		}
		return b.progress(p, now)
	})
	switch {
	case errno.Is(err, errno.NotFound), foreign:
		return reject(http.StatusForbidden, stateDenied, "no boot of "+p.MAC.String()+" at this address is known")
	case err != nil:
		return reject(http.StatusServiceUnavailable, stateWait, err.Error())
	}
	return http.StatusNoContent, nil
}
