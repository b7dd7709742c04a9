package dhcp

import (
	"fmt"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	discover = dhcpv4.MessageTypeDiscover
	request  = dhcpv4.MessageTypeRequest
	decline  = dhcpv4.MessageTypeDecline
	release  = dhcpv4.MessageTypeRelease
	inform   = dhcpv4.MessageTypeInform
)

func nodes() map[MAC]Machine {
	return map[MAC]Machine{
		mac(1): {State: Boot, Addr: ip4("10.77.0.12"), Hostname: "node1"},
		mac(2): {State: Boot, Addr: ip4("10.77.0.50")},
		mac(3): {State: Boot}, mac(4): {State: Boot}, mac(5): {State: Boot},
		mac(9): {State: Pending},
	}
}

func TestExchange(t *testing.T) {
	r := newRig(t, testConfig(nodes()))
	if a := r.get(mac(1)); a != ip4("10.77.0.12") {
		t.Errorf("the fixed address in the range became %v", a)
	}
	if a := r.get(mac(2)); a != ip4("10.77.0.50") {
		t.Errorf("the fixed address outside the range became %v", a)
	}
	first := r.get(mac(3))
	if first != ip4("10.77.0.10") {
		t.Errorf("the first of the range is %v", first)
	}
	if again := r.get(mac(3)); again != first {
		t.Errorf("the machine had %v and got %v", first, again)
	}
	if a := r.get(mac(77)); a != ip4("10.77.0.200") {
		t.Errorf("an unknown machine got %v", a)
	}
	ack := r.want("ack 10.77.0.12", message{kind: request, mac: mac(1), wanted: "10.77.0.12"})
	for code, want := range map[uint8]string{
		1: "ffffff00", 3: "0a4d00fe", 6: "0a4d00010a4d0002", 12: fmt.Sprintf("%x", "node1"), 15: fmt.Sprintf("%x", "cluster.example"),
		28: "0a4d00ff", 42: "0a4d0001", 51: "00000e10", 53: "05", 54: "0a4d0001", 58: "00000708", 59: "00000c4e",
	} {
		if got := fmt.Sprintf("%x", ack.Message.Options[code]); got != want {
			t.Errorf("option %d is %s, want %s", code, got, want)
		}
	}
}

// The states of a client that RFC 2131 section 4.3.2 distinguishes.
func TestRequestStates(t *testing.T) {
	for _, c := range []struct {
		name, want string
		m          message
	}{
		{"SELECTING", "ack 10.77.0.10", message{mac: mac(3), wanted: "10.77.0.10", server: "10.77.0.1"}},
		{"SELECTING what another has", "nak", message{mac: mac(4), wanted: "10.77.0.10", server: "10.77.0.1"}},
		{"SELECTING another server", "silence", message{mac: mac(3), wanted: "10.77.0.10", server: "10.77.0.9"}},
		{"SELECTING after a take-over", "ack 10.77.0.15", message{mac: mac(5), wanted: "10.77.0.15", server: "10.77.0.1"}},
		{"SELECTING without an address", "silence", message{mac: mac(3), server: "10.77.0.1"}},
		{"INIT-REBOOT", "ack 10.77.0.10", message{mac: mac(3), wanted: "10.77.0.10"}},
		{"INIT-REBOOT what another has", "nak", message{mac: mac(4), wanted: "10.77.0.10"}},
		{"INIT-REBOOT from another network", "nak", message{mac: mac(3), wanted: "192.168.1.5"}},
		{"INIT-REBOOT of a lost lease", "ack 10.77.0.15", message{mac: mac(4), wanted: "10.77.0.15"}},
		{"INIT-REBOOT with another fixed address", "nak", message{mac: mac(1), wanted: "10.77.0.15"}},
		{"INIT-REBOOT to another's fixed address", "nak", message{mac: mac(4), wanted: "10.77.0.12"}},
		{"INIT-REBOOT to the server's address", "nak", message{mac: mac(4), wanted: "10.77.0.1"}},
		{"INIT-REBOOT to the router's address", "nak", message{mac: mac(4), wanted: "10.77.0.254"}},
		{"INIT-REBOOT outside the range", "nak", message{mac: mac(4), wanted: "10.77.0.100"}},
		{"INIT-REBOOT of a guest in the range", "nak", message{mac: mac(77), wanted: "10.77.0.15"}},
		{"INIT-REBOOT of a guest", "ack 10.77.0.201", message{mac: mac(77), wanted: "10.77.0.201"}},
		{"RENEWING", "ack 10.77.0.10", message{mac: mac(3), client: "10.77.0.10"}},
		{"RENEWING what another has", "nak", message{mac: mac(4), client: "10.77.0.10"}},
		{"RENEWING from another network", "nak", message{mac: mac(3), client: "192.168.1.5"}},
		{"RENEWING a lost lease", "ack 10.77.0.15", message{mac: mac(4), client: "10.77.0.15"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, testConfig(nodes()))
			r.get(mac(3))
			c.m.kind = request
			r.want(c.want, c.m)
			for _, change := range r.last.Changes {
				if want := c.want == "ack "+change.Lease.Addr.String(); !want {
					t.Errorf("unexpected change %+v", change)
				}
			}
		})
	}
}

// A machine that was approved leaves the part of the guests when it starts anew,
// and keeps its address while it runs.
func TestApproved(t *testing.T) {
	machines := nodes()
	r := newRig(t, testConfig(machines))
	guest := r.get(mac(9))
	machines[mac(9)] = Machine{State: Boot, Addr: ip4("10.77.0.60")}
	r.want("ack "+guest.String(), message{kind: request, mac: mac(9), client: guest.String()})
	r.want("nak", message{kind: request, mac: mac(9), wanted: guest.String()})
	if a := r.get(mac(9)); a != ip4("10.77.0.60") {
		t.Errorf("it got %v", a)
	}
	machines[mac(9)] = Machine{}
	r.want("nak", message{kind: request, mac: mac(9), client: "10.77.0.60"})
}

func TestFixedTaken(t *testing.T) {
	machines := nodes()
	r := newRig(t, testConfig(machines))
	taken := r.get(mac(3))
	machines[mac(4)] = Machine{State: Boot, Addr: taken}
	if a := r.get(mac(4)); a == taken {
		t.Fatalf("two machines have %v", a)
	}
	r.send(message{kind: discover, mac: mac(4)})
	if !r.saw(FixedTaken) {
		t.Errorf("events %v, want FixedTaken", r.last.Events)
	}
	r.want("ack "+taken.String(), message{kind: request, mac: mac(3), client: taken.String()})
	r.send(message{kind: release, mac: mac(3), client: taken.String()})
	if a := r.get(mac(4)); a != taken {
		t.Errorf("its address is free and it got %v", a)
	}
	if a := r.get(mac(3)); a == taken {
		t.Errorf("the fixed address of another machine went to %v", mac(3))
	}
}

// A fixed address may lie among those of the guests.
func TestFixedAmongGuests(t *testing.T) {
	machines := nodes()
	machines[mac(6)] = Machine{State: Boot, Addr: ip4("10.77.0.200")}
	r := newRig(t, testConfig(machines))
	r.want("nak", message{kind: request, mac: mac(77), wanted: "10.77.0.200"})
	r.want("offer 10.77.0.201", message{kind: discover, mac: mac(77), wanted: "10.77.0.200"})
	if a := r.get(mac(6)); a != ip4("10.77.0.200") {
		t.Errorf("it got %v", a)
	}
}

func TestRelease(t *testing.T) {
	r := newRig(t, testConfig(nodes()))
	a := r.get(mac(3))
	r.want("silence", message{kind: release, mac: mac(4), client: a.String(), server: "10.77.0.1"})
	if len(r.last.Changes) != 0 {
		t.Fatalf("another machine's release counts: %+v", r.last.Changes)
	}
	r.want("silence", message{kind: release, mac: mac(3), client: "10.77.0.15", server: "10.77.0.1"})
	if len(r.last.Changes) != 0 {
		t.Fatalf("the release of another address counts: %+v", r.last.Changes)
	}
	r.want("silence", message{kind: release, mac: mac(3), client: a.String(), server: "10.77.0.1"})
	if len(r.last.Changes) != 1 || !r.last.Changes[0].Delete {
		t.Fatalf("changes %+v", r.last.Changes)
	}
}

func TestDecline(t *testing.T) {
	r := newRig(t, testConfig(nodes()))
	a := r.get(mac(3))
	r.want("silence", message{kind: decline, mac: mac(4), wanted: a.String(), server: "10.77.0.1"})
	if len(r.last.Changes) != 0 {
		t.Fatal("a machine declined the address of another")
	}
	r.want("silence", message{kind: decline, mac: mac(3), wanted: a.String(), server: "10.77.0.1"})
	if !r.saw(Declined) || len(r.last.Changes) != 1 || !r.last.Changes[0].Lease.Declined {
		t.Fatalf("decision %+v", r.last)
	}
	declined := r.last.Changes[0].Lease
	if b := r.get(mac(3)); b == a {
		t.Fatal("it got the declined address again")
	}
	r.want("nak", message{kind: request, mac: mac(4), wanted: a.String()})
	// The next server knows it, too.
	next := newRig(t, testConfig(nodes()), declined)
	next.want("nak", message{kind: request, mac: mac(3), wanted: a.String()})
	next.now = next.now.Add(Quarantine + Grace + time.Second)
	next.want("ack "+a.String(), message{kind: request, mac: mac(3), wanted: a.String()})
}

func TestInform(t *testing.T) {
	r := newRig(t, testConfig(nodes()))
	reply := r.want("ack", message{kind: inform, mac: mac(3), client: "10.77.0.99"})
	if reply.Message.Options.Has(dhcpv4.OptionIPAddressLeaseTime) || len(r.last.Changes) != 0 {
		t.Error("INFORM got a lease")
	}
	if reply.To.String() != "10.77.0.99:68" {
		t.Errorf("it goes to %v", reply.To)
	}
	r.want("silence", message{kind: inform, mac: mac(3), client: "192.0.2.1"})
	r.want("silence", message{kind: inform, mac: mac(3)})
}

func TestExpiry(t *testing.T) {
	r := newRig(t, testConfig(nodes()))
	a := r.get(mac(3))
	r.now = r.now.Add(time.Hour + Grace - time.Second)
	if d := r.core.Expire(r.now); len(d.Changes) != 0 {
		t.Fatal("the lease ended too early")
	}
	r.now = r.now.Add(2 * time.Second)
	if d := r.core.Expire(r.now); len(d.Changes) != 1 || !d.Changes[0].Delete || d.Changes[0].Lease.Addr != a {
		t.Fatalf("decision %+v, want the lease deleted", d)
	}
	r.want("offer 10.77.0.11", message{kind: discover, mac: mac(4)})
	r.now = r.now.Add(offerTime + time.Second)
	if d := r.core.Expire(r.now); len(d.Changes) != 0 || len(r.core.table.byAddr) != 0 {
		t.Fatalf("after the offer: %+v", d)
	}
}

// Requests of unknown machines fill their own part, and nothing else.
func TestFlood(t *testing.T) {
	cfg := testConfig(nodes())
	cfg.GuestRate = 10000
	r := newRig(t, cfg)
	for i := range 20000 {
		r.send(message{kind: discover, mac: mac(1000 + i)})
		r.now = r.now.Add(100 * time.Microsecond)
	}
	if n := len(r.core.table.byAddr); n != 4 {
		t.Fatalf("%d entries after a flood, want those of the guests, 4", n)
	}
	if !r.saw(GuestsFull) {
		t.Errorf("events %v", r.last.Events)
	}
	for i := range 5 {
		r.get(mac(1 + i))
	}

	cfg.GuestRate = 10
	r = newRig(t, cfg)
	answers := 0
	for range 1000 {
		if r.send(message{kind: discover, mac: mac(77)}) != nil {
			answers++
		}
	}
	if answers != 10 || !r.saw(GuestFlood) {
		t.Errorf("%d answers in no time at a rate of 10, events %v", answers, r.last.Events)
	}
	r.get(mac(1))
}

func TestFull(t *testing.T) {
	machines := map[MAC]Machine{}
	for i := range 11 {
		machines[mac(i)] = Machine{State: Boot}
	}
	r := newRig(t, testConfig(machines))
	for i := range 10 {
		r.get(mac(i))
	}
	r.want("silence", message{kind: discover, mac: mac(10)})
	if !r.saw(RangeFull) {
		t.Errorf("events %v", r.last.Events)
	}
	r.send(message{kind: release, mac: mac(7), client: "10.77.0.17"})
	r.want("offer 10.77.0.17", message{kind: discover, mac: mac(10)})
}

func TestNoGuests(t *testing.T) {
	cfg := testConfig(nodes())
	cfg.Subnets[0].Guests = Range{}
	r := newRig(t, cfg)
	for _, kind := range []dhcpv4.MessageType{discover, request, inform} {
		r.want("silence", message{kind: kind, mac: mac(77), wanted: "10.77.0.15", client: "10.77.0.15"})
	}
	r.get(mac(3))
}

func TestRelay(t *testing.T) {
	cfg := testConfig(nodes())
	second := cfg.Subnets[0]
	second.Prefix, second.Range, second.Guests = prefix("10.78.0.0/24"), Range{ip4("10.78.0.10"), ip4("10.78.0.19")}, Range{}
	second.Router = ip4("10.78.0.254")
	cfg.Subnets = append(cfg.Subnets, second)
	r := newRig(t, cfg)
	agent := "52 04 01020304"
	offer := r.want("offer 10.78.0.10", message{kind: discover, mac: mac(3), relay: "10.78.0.254", options: agent})
	if offer.To.String() != "10.78.0.254:67" || offer.Link != (MAC{}) {
		t.Errorf("the offer goes to %v, %v", offer.To, offer.Link)
	}
	if got := fmt.Sprintf("%x", offer.Message.Options[82]); got != "01020304" {
		t.Errorf("the relay's option comes back as %s", got)
	}
	r.want("ack 10.78.0.10", message{kind: request, mac: mac(3), relay: "10.78.0.254", wanted: "10.78.0.10", server: "10.77.0.1"})
	renewed := r.want("ack 10.78.0.10", message{kind: request, mac: mac(3), client: "10.78.0.10"})
	if renewed.To.String() != "10.78.0.10:68" {
		t.Errorf("the renewal goes to %v", renewed.To)
	}
	nak := r.want("nak", message{kind: request, mac: mac(4), relay: "10.78.0.254", wanted: "10.77.0.15"})
	if nak.To.String() != "10.78.0.254:67" || !nak.Message.IsBroadcast() {
		t.Errorf("the refusal goes to %v, broadcast %v", nak.To, nak.Message.IsBroadcast())
	}
	r.want("silence", message{kind: discover, mac: mac(3), relay: "10.99.0.1"})
}

// Where replies go: RFC 2131 section 4.1.
func TestDestination(t *testing.T) {
	r := newRig(t, testConfig(nodes()))
	for _, c := range []struct {
		name, want, to string
		link           MAC
		m              message
	}{
		{"no address yet", "offer 10.77.0.10", "10.77.0.10:68", mac(3), message{kind: discover, mac: mac(3)}},
		{"cannot take unicast", "offer 10.77.0.10", "255.255.255.255:68", MAC{}, message{kind: discover, mac: mac(3), flags: 0x8000}},
		{"renews", "ack 10.77.0.10", "10.77.0.10:68", MAC{}, message{kind: request, mac: mac(3), client: "10.77.0.10"}},
		{"refused", "nak", "255.255.255.255:68", MAC{}, message{kind: request, mac: mac(3), wanted: "10.0.0.1"}},
	} {
		reply := r.want(c.want, c.m)
		if reply.To.String() != c.to || reply.Link != c.link {
			t.Errorf("%s: it goes to %v %v, want %s %v", c.name, reply.To, reply.Link, c.to, c.link)
		}
	}
}

func TestOtherServerChosen(t *testing.T) {
	r := newRig(t, testConfig(nodes()))
	r.want("offer 10.77.0.10", message{kind: discover, mac: mac(3)})
	r.want("silence", message{kind: request, mac: mac(3), wanted: "10.77.0.88", server: "10.77.0.9"})
	if !r.saw(OtherServer) || r.last.Events[0].Addr != ip4("10.77.0.9") {
		t.Errorf("events %v", r.last.Events)
	}
	if len(r.core.table.byAddr) != 0 {
		t.Error("the offer is kept, though the machine chose another server")
	}
}

// A store that lost a deletion has two leases of one machine: neither address goes
// to another while a lease lasts.
func TestLoadTwoOfOneMachine(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	r := newRig(t, testConfig(nodes()),
		Lease{Addr: ip4("10.77.0.10"), MAC: mac(3), Expires: at.Add(time.Minute)},
		Lease{Addr: ip4("10.77.0.11"), MAC: mac(3), Expires: at.Add(time.Hour)},
		Lease{Addr: ip4("10.99.0.11"), MAC: mac(4), Expires: at.Add(time.Hour)})
	r.want("nak", message{kind: request, mac: mac(4), wanted: "10.77.0.10"})
	r.want("nak", message{kind: request, mac: mac(3), wanted: "10.77.0.10"})
	r.want("ack 10.77.0.11", message{kind: request, mac: mac(3), client: "10.77.0.11"})
	r.now = r.now.Add(time.Minute + Grace + time.Second)
	r.want("ack 10.77.0.10", message{kind: request, mac: mac(4), wanted: "10.77.0.10"})
	if !r.last.Changes[0].Delete {
		t.Errorf("changes %+v, want the old lease deleted first", r.last.Changes)
	}
}
