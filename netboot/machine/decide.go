package machine

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"ssi/internal/api"
)

// verdict is what becomes of a request for admission.
type verdict int

// The verdicts.
const (
	verdictWait   verdict = iota // not now; ask again
	verdictRefuse                // never, for this request
	verdictAgain                 // only after another boot
	verdictClaim                 // its key becomes that of the boot; then decide again
	verdictSame                  // it gets what it got already
	verdictGrant                 // it gets a credential
)

// question is all that a decision depends on.
type question struct {
	req       request
	remote    netip.Addr
	neighbour MAC  // who has that address, as far as our own segment tells
	near      bool // neighbour is known
	machine   *Machine
	boot      Boot
	node      api.State // of the machine's number
	now       time.Time
}

// decision is the verdict, why in words for the console of the machine, and what
// is reported to the operators because it looks like an attack.
type decision struct {
	verdict verdict
	why     string
	alarm   string
}

// decide is the rules of the package doc.
func decide(q question) decision {
	mac := q.req.MAC
	if q.machine == nil {
		return decision{verdictWait, fmt.Sprintf("the cluster does not know this machine (%s); on any node: ssi node approve %s", mac, mac), ""}
	}
	if q.machine.Standing == Denied {
		return decision{verdictRefuse, fmt.Sprintf("an operator denied this machine (%s); on any node: ssi node approve %s", mac, mac), ""}
	}
	claimed := len(q.boot.Key) > 0
	if !claimed && (q.boot.At.IsZero() || q.now.Sub(q.boot.At) > Window) {
		return decision{verdictAgain, fmt.Sprintf("the cluster has not booted this machine (%s) within the last %v; boot it again, from the network", mac, Window), ""}
	}
	if q.remote != q.boot.IP {
		return decision{verdictRefuse, fmt.Sprintf("the request came from %s, which is not the address that was leased to %s", q.remote, mac),
			fmt.Sprintf("%s asked to be admitted as %s, which has the address %s", q.remote, mac, q.boot.IP)}
	}
	if q.near && !slices.Contains(q.machine.MACs, q.neighbour) {
		return decision{verdictRefuse, fmt.Sprintf("the address %s is used by %s, not by %s", q.remote, q.neighbour, mac),
			fmt.Sprintf("%s asked to be admitted as %s, with its address %s", q.neighbour, mac, q.remote)}
	}
	if claimed && !bytes.Equal(q.boot.Key, q.req.Key) {
		return decision{verdictRefuse, fmt.Sprintf("another request was made for %s in this boot, with another key; boot it again, from the network, and look who else is on it", mac),
			fmt.Sprintf("a second request for %s with another key, from %s: one of the two is not the machine", mac, q.remote)}
	}
	if !claimed {
		return decision{verdictClaim, "", ""}
	}
	switch {
	case q.machine.Standing == Pending:
		return decision{verdictWait, fmt.Sprintf("waits for approval; on any node: ssi node approve %s", mac), ""}
	case len(q.boot.Sealed) > 0 && q.boot.Granted == q.machine.Node && q.boot.ID == q.req.Boot && q.now.Before(q.boot.Expires):
		return decision{verdictSame, "", ""}
	case alive(q.node):
		return decision{verdictWait, fmt.Sprintf("node %d is still %s for the cluster; waits until it is declared down", q.machine.Node, q.node), ""}
	case !q.boot.First.IsZero() && q.now.Sub(q.boot.First) > RenewWindow:
		return decision{verdictAgain, fmt.Sprintf("this boot had its credential %v ago and used it, or did not; boot it again, from the network", q.now.Sub(q.boot.First).Round(time.Second)), ""}
	}
	return decision{verdictGrant, "", ""}
}

// booted begins another boot, unless it is a further sign of the present one; ok
// is false if there is nothing to write.
func (b Boot) booted(ip netip.Addr, now time.Time) (Boot, bool) {
	if len(b.Key) == 0 && b.IP == ip && now.Sub(b.At) < sameBoot {
		return b, false
	}
	return Boot{At: now, IP: ip, Phase: "booting", PhaseAt: now}, true
}

// leased notes another address of the present boot.
func (b Boot) leased(ip netip.Addr) (Boot, bool) {
	if b.At.IsZero() || b.IP == ip {
		return b, false
	}
	b.IP = ip
	return b, true
}

// progress notes what a machine says of its boot.
func (b Boot) progress(p progress, now time.Time) (Boot, bool) {
	if b.Phase == p.Phase && b.Text == p.Text {
		return b, false
	}
	if b.Phase != p.Phase {
		b.Phase, b.PhaseAt = p.Phase, now
	}
	b.Text = p.Text
	return b, true
}
