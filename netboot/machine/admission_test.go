package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// joinerOf is a machine with a key of its own.
func joinerOf(t testing.TB, m MAC) *joiner {
	t.Helper()
	j, err := newJoiner(t.TempDir(), "", m.String(), "boot-"+m.String(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	j.find = func(context.Context, MAC) (string, error) { return "", errors.New("the test has no segment") }
	return j
}

func (j *joiner) body() []byte {
	return mustBody(request{MAC: j.mac, Key: j.key.PublicKey().Bytes(), Boot: j.boot})
}

func mustBody(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// ask makes a request; the second one of a machine that claims its boot gets the
// credential.
func (w *world) ask(from string, body []byte) answer {
	w.t.Helper()
	_, reply := w.adm.Admit(context.Background(), ip(from), body)
	a, err := parseAnswer(reply)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// booted has a machine boot at an address, on our segment.
func (w *world) booted(m MAC, at string) {
	w.t.Helper()
	w.near.set(ip(at), m)
	w.adm.Booted(m, ip(at))
	w.settled()
}

func TestAdmit(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	j := joinerOf(t, mac(1))
	if a := w.ask("10.0.0.2", j.body()); a.State != stateAgain {
		t.Errorf("before its boot: %+v", a)
	}
	if a := w.adm.Ask(mac(1), "amd64"); !a.Boot || a.Machine.Node != 2 {
		t.Errorf("DHCP: %+v", a)
	}
	w.booted(mac(1), "10.0.0.2")
	a := w.ask("10.0.0.2", j.body())
	if a.State != stateAdmitted {
		t.Fatalf("got %+v", a)
	}
	file, err := open(j.key, j.mac, j.boot, a.Sealed)
	if err != nil || !strings.HasPrefix(string(file), "ssi1-secret1\n10.0.0.1:1985") {
		t.Fatalf("the credential: %q, %v", file, err)
	}
	// A retry gets the same bytes; one after the expiry new ones.
	if again := w.ask("10.0.0.2", j.body()); again.State != stateAdmitted || !slices.Equal(again.Sealed, a.Sealed) {
		t.Errorf("a retry: %+v", again)
	}
	w.clock.forward(CredentialTTL)
	if again := w.ask("10.0.0.2", j.body()); again.State != stateAdmitted || slices.Equal(again.Sealed, a.Sealed) {
		t.Errorf("a retry after the expiry: %+v", again)
	}
	w.cluster.set(2, api.Up)
	w.clock.forward(CredentialTTL)
	if again := w.ask("10.0.0.2", j.body()); again.State != stateWait || !strings.Contains(again.Why, "node 2 is still UP") {
		t.Errorf("while its node is up: %+v", again)
	}
	// Its power is cut: it boots again and makes another key.
	w.cluster.set(2, api.Down)
	w.booted(mac(1), "10.0.0.2")
	if again := w.ask("10.0.0.2", joinerOf(t, mac(1)).body()); again.State != stateAdmitted {
		t.Errorf("the next boot: %+v", again)
	}
	if got := fmt.Sprint(w.cluster.made()); got != "[2 2 2]" {
		t.Errorf("tokens were made for the nodes %s", got)
	}
	if w.reported() != "" {
		t.Errorf("reported: %s", w.reported())
	}
}

// The attack: a second machine overheard everything on the wire: the command
// line, each request and each answer.
func TestSecondMachineThatOverheardEverything(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	victim, attacker := joinerOf(t, mac(1)), joinerOf(t, mac(1)) // it claims to be mac(1)
	w.booted(mac(1), "10.0.0.2")
	w.near.set(ip("10.0.0.66"), mac(66))
	request := victim.body()
	overheard := w.ask("10.0.0.2", request)
	if overheard.State != stateAdmitted {
		t.Fatalf("the victim: %+v", overheard)
	}
	if b := mustBody(overheard); strings.Contains(string(b), "ssi1-") {
		t.Errorf("the token crosses the wire: %s", b)
	}

	// It cannot open the seal: not with its own key, nor as that of another boot.
	if _, err := open(attacker.key, mac(1), victim.boot, overheard.Sealed); err == nil {
		t.Error("the attacker opened the seal")
	}
	if _, err := open(victim.key, mac(2), victim.boot, overheard.Sealed); err == nil {
		t.Error("the seal opens for another MAC")
	}
	if _, err := open(victim.key, mac(1), "other", overheard.Sealed); err == nil {
		t.Error("the seal opens for another boot")
	}

	// A replay of the request from its own address is refused; even from the
	// victim's (a router, a stolen address) it brings only the bytes it has.
	if a := w.ask("10.0.0.66", request); a.State != stateDenied || a.Sealed != nil {
		t.Errorf("a replay from elsewhere: %+v", a)
	}
	if a := w.ask("10.0.0.2", request); !slices.Equal(a.Sealed, overheard.Sealed) {
		t.Errorf("a replay: %+v", a)
	}

	// A request with its own key is refused, from wherever it comes, and reported.
	for _, from := range []string{"10.0.0.66", "10.0.0.2"} {
		if a := w.ask(from, attacker.body()); a.State != stateDenied || a.Sealed != nil {
			t.Errorf("its own key, from %s: %+v", from, a)
		}
	}
	// So is one with the victim's address and the attacker's own MAC.
	w.near.set(ip("10.0.0.2"), mac(66))
	if a := w.ask("10.0.0.2", attacker.body()); a.State != stateDenied || a.Sealed != nil {
		t.Errorf("with the victim's address: %+v", a)
	}
	for _, text := range []string{
		"10.0.0.66 asked to be admitted as 52:54:00:00:00:01, which has the address 10.0.0.2",
		"a second request for 52:54:00:00:00:01 with another key, from 10.0.0.2",
		"52:54:00:00:00:42 asked to be admitted as 52:54:00:00:00:01",
	} {
		if !strings.Contains(w.reported(), text) {
			t.Errorf("not reported: %s\ngot:\n%s", text, w.reported())
		}
	}
	if alarm := w.info("2").Alarm; !strings.Contains(alarm, "52:54:00:00:00:42 asked") {
		t.Errorf("the table says %q", alarm)
	}
	if got := fmt.Sprint(w.cluster.made()); got != "[2]" {
		t.Errorf("tokens were made for the nodes %s", got)
	}
	// The victim is not disturbed.
	w.near.set(ip("10.0.0.2"), mac(1))
	w.clock.forward(10 * time.Second)
	if a := w.ask("10.0.0.2", request); !slices.Equal(a.Sealed, overheard.Sealed) {
		t.Errorf("the victim's retry: %+v", a)
	}
}

// An attacker that asks before the machine does gets nothing from its own address,
// and nothing for a MAC that was not booted.
func TestAttackerIsQuicker(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	attacker := joinerOf(t, mac(1))
	w.near.set(ip("10.0.0.66"), mac(66))
	if a := w.ask("10.0.0.66", attacker.body()); a.State != stateAgain {
		t.Errorf("before the boot: %+v", a)
	}
	w.booted(mac(1), "10.0.0.2")
	if a := w.ask("10.0.0.66", attacker.body()); a.State != stateDenied {
		t.Errorf("before the machine: %+v", a)
	}
	if a := w.ask("10.0.0.2", joinerOf(t, mac(1)).body()); a.State != stateAdmitted {
		t.Errorf("the machine: %+v", a)
	}
	w.clock.forward(Window + time.Second)
	w.booted(mac(1), "10.0.0.2")
	w.clock.forward(Window + time.Second)
	if a := w.ask("10.0.0.2", attacker.body()); a.State != stateAgain {
		t.Errorf("after the window: %+v", a)
	}
}

func TestUnknownMachineIsApproved(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	j := joinerOf(t, mac(5))
	if a := w.adm.Ask(mac(5), "arm64"); a.Boot || !strings.Contains(a.Why, "ssi node approve 52:54:00:00:00:05") {
		t.Errorf("DHCP: %+v", a)
	}
	w.settled()
	if m := w.info(mac(5).String()); m.State != api.MachinePending || m.Arch != "arm64" {
		t.Errorf("got %+v", m)
	}
	w.booted(mac(5), "10.0.0.5")
	for range 3 {
		if a := w.ask("10.0.0.5", j.body()); a.State != stateWait || !strings.Contains(a.Why, "waits for approval") {
			t.Errorf("before: %+v", a)
		}
	}
	w.clock.forward(12 * time.Hour) // until an operator comes
	if _, err := w.table.Approve(t.Context(), mac(5).String(), api.MachineChange{}); err != nil {
		t.Fatal(err)
	}
	if a := w.ask("10.0.0.5", joinerOf(t, mac(5)).body()); a.State != stateDenied {
		t.Errorf("another one after the approval: %+v", a)
	}
	if a := w.ask("10.0.0.5", j.body()); a.State != stateAdmitted {
		t.Errorf("after: %+v", a)
	}
	// A machine that only asks by HTTP is written down as well.
	if a := w.ask("10.0.0.6", joinerOf(t, mac(6)).body()); a.State != stateWait || !strings.Contains(a.Why, "does not know this machine") {
		t.Errorf("unknown: %+v", a)
	}
	w.settled()
	if m := w.info(mac(6).String()); m.State != api.MachinePending {
		t.Errorf("got %+v", m)
	}
	if _, err := w.table.Deny(t.Context(), mac(6).String()); err != nil {
		t.Fatal(err)
	}
	if a := w.ask("10.0.0.6", joinerOf(t, mac(6)).body()); a.State != stateDenied || !strings.Contains(a.Why, "an operator denied") {
		t.Errorf("denied: %+v", a)
	}
	if a := w.adm.Ask(mac(6), ""); a.Boot {
		t.Errorf("a denied machine is booted: %+v", a)
	}
}

// A flood of unknown machines costs the cluster little, and known ones boot.
func TestFloodOfUnknownMachines(t *testing.T) {
	w := newWorld(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	before := w.reg.changes()
	for i := range 20_000 {
		w.adm.Ask(mac(i+1000), "")
	}
	if n := len(w.adm.events); n > maxEvents {
		t.Errorf("%d events wait", n)
	}
	w.run(t)
	w.settled()
	if n := w.reg.changes() - before; n > unknownBurst {
		t.Errorf("the flood made %d changes", n)
	}
	if a := w.adm.Ask(mac(1), ""); !a.Boot {
		t.Errorf("a known one: %+v", a)
	}
	for i := range 1000 {
		w.ask("10.0.0.9", joinerBody(i+100_000))
	}
	if n := w.reg.changes() - before; n > unknownBurst {
		t.Errorf("the flood made %d changes", n)
	}
}

func joinerBody(n int) []byte {
	return mustBody(request{MAC: mac(n), Key: make([]byte, keySize), Boot: "b"})
}

func TestProgress(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	report := func(from string, p progress) int {
		t.Helper()
		status, _ := w.adm.Progress(t.Context(), ip(from), mustBody(p))
		return status
	}
	if s := report("10.0.0.2", progress{mac(1), "modules", ""}); s != http.StatusForbidden {
		t.Errorf("before its boot: %d", s)
	}
	w.booted(mac(1), "10.0.0.2")
	if s := report("10.0.0.2", progress{mac(1), "modules", "12 of 46\x1b[2J"}); s != http.StatusNoContent {
		t.Errorf("status %d", s)
	}
	if m := w.info("2"); m.Phase != "modules" || m.Text != "12 of 46?[2J" || m.State != api.MachineBooting {
		t.Errorf("got %+v", m)
	}
	if s := report("10.0.0.3", progress{mac(1), "hacked", ""}); s != http.StatusForbidden {
		t.Errorf("from elsewhere: %d", s)
	}
	if s := report("10.0.0.2", progress{mac(7), "modules", ""}); s != http.StatusForbidden {
		t.Errorf("of an unknown machine: %d", s)
	}
	limited := 0
	for i := range 50 {
		if report("10.0.0.2", progress{mac(1), "join", fmt.Sprint(i)}) == http.StatusTooManyRequests {
			limited++
		}
	}
	if limited < 50-machineBurst {
		t.Errorf("only %d of 50 at once were refused", limited)
	}
	if m := w.info("2"); m.Phase != "join" {
		t.Errorf("got %+v", m)
	}
	if s, _ := w.adm.Progress(t.Context(), ip("10.0.0.2"), []byte("{")); s != http.StatusBadRequest {
		t.Errorf("malformed: %d", s)
	}
}

func TestMalformedRequests(t *testing.T) {
	w := newWorld(t)
	key := `"` + strings.Repeat("A", 43) + `="`
	for _, body := range []string{
		"", "{", "[]", `{"mac":"x"}`, `{"mac":"52:54:00:00:00:01"}`, `{"mac":"52:54:00:00:00:01","key":"AAAA","boot":"b"}`,
		`{"key":` + key + `,"boot":"b"}`, `{"mac":"52:54:00:00:00:01","key":` + key + `}`,
		`{"mac":"52:54:00:00:00:01","key":` + key + `,"boot":"a\u0000b"}`,
		`{"mac":"52:54:00:00:00:01","key":` + key + `,"boot":"` + strings.Repeat("b", 65) + `"}`,
		`{"mac":"52:54:00:00:00:01","key":` + key + `,"boot":"b"} x`,
		strings.Repeat(" ", MaxBody+1),
	} {
		status, reply := w.adm.Admit(t.Context(), ip("10.0.0.2"), []byte(body))
		if a, err := parseAnswer(reply); status != http.StatusBadRequest || err != nil || a.State != stateDenied || !strings.Contains(a.Why, "the request is malformed") {
			t.Errorf("%.60q: %d %s", body, status, reply)
		}
	}
}

// A key that is no point of the curve claims no boot.
func TestBadKeyClaimsNothing(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	w.booted(mac(1), "10.0.0.2")
	if a := w.ask("10.0.0.2", mustBody(request{MAC: mac(1), Key: make([]byte, keySize), Boot: "b"})); a.State != stateDenied {
		t.Errorf("got %+v", a)
	}
	if b := w.boot(mac(1)); len(b.Key) != 0 {
		t.Error("the boot is claimed")
	}
}

// What the cluster cannot do now is a reason to wait, not an end.
func TestClusterCannotDecide(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	w.booted(mac(1), "10.0.0.2")
	j := joinerOf(t, mac(1))
	w.reg.setFail(errno.New(errno.NoQuorum, "write", 0, "2 of 3 voters are out of reach"))
	if a := w.ask("10.0.0.2", j.body()); a.State != stateWait || !strings.Contains(a.Why, "2 of 3 voters are out of reach") {
		t.Errorf("got %+v", a)
	}
	w.reg.setFail(nil)
	w.cluster.fail = errno.New(errno.Exists, "token", 0, "node number 2 is taken by a node that is up")
	if a := w.ask("10.0.0.2", j.body()); a.State != stateWait || !strings.Contains(a.Why, "is taken by") {
		t.Errorf("got %+v", a)
	}
	w.cluster.fail = nil
	if a := w.ask("10.0.0.2", j.body()); a.State != stateAdmitted {
		t.Errorf("got %+v", a)
	}
}

// The init node dies after it gave a credential: the next one gives the same
// bytes to the same key, and nothing to another.
func TestAdmissionMoves(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	w.booted(mac(1), "10.0.0.2")
	j := joinerOf(t, mac(1))
	first := w.ask("10.0.0.2", j.body())
	w.adm = NewAdmission(w.another(), w.near, w.adm.log, w.adm.alarm)
	if a := w.ask("10.0.0.2", j.body()); a.State != stateAdmitted || !slices.Equal(a.Sealed, first.Sealed) {
		t.Errorf("got %+v", a)
	}
	if a := w.ask("10.0.0.2", joinerOf(t, mac(1)).body()); a.State != stateDenied {
		t.Errorf("another key: %+v", a)
	}
	if n := len(w.cluster.made()); n != 1 {
		t.Errorf("%d tokens were made", n)
	}
}

// Many keys ask at once, at two nodes that both think they hold init: one of them
// is admitted.
func TestOneKeyOfABoot(t *testing.T) {
	for range 20 {
		w := newWorld(t)
		m := w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
		if err := w.table.editBoot(t.Context(), m.ID(), func(Boot) (Boot, bool) { return Boot{At: w.clock.now(), IP: ip("10.0.0.2")}, true }); err != nil {
			t.Fatal(err)
		}
		nodes := []*Admission{w.adm, NewAdmission(w.another(), w.near, w.adm.log, w.adm.alarm)}
		var wg sync.WaitGroup
		var admitted atomic.Int32
		for i := range 8 {
			body := joinerOf(t, mac(1)).body()
			wg.Go(func() {
				_, reply := nodes[i%2].Admit(t.Context(), ip("10.0.0.2"), body)
				if a, err := parseAnswer(reply); err == nil && a.State == stateAdmitted {
					admitted.Add(1)
				}
			})
		}
		wg.Wait()
		if n := admitted.Load(); n != 1 {
			t.Fatalf("%d keys were admitted", n)
		}
	}
}

func BenchmarkAsk(b *testing.B) {
	w := newWorld(b)
	for n := id.Node(2); n <= 120; n++ {
		w.add(api.MachineSpec{MACs: []string{mac(int(n)).String()}})
	}
	for b.Loop() {
		if !w.adm.Ask(mac(60), "").Boot {
			b.Fatal("not booted")
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	w := newWorld(b)
	m := w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	j := joinerOf(b, mac(1))
	req, err := parseRequest(j.body())
	if err != nil {
		b.Fatal(err)
	}
	at := netip.MustParseAddr("10.0.0.2")
	for b.Loop() {
		if err := w.table.editBoot(b.Context(), m.ID(), func(Boot) (Boot, bool) { return Boot{At: w.clock.now(), IP: at}, true }); err != nil {
			b.Fatal(err)
		}
		if d, _, err := w.adm.admit(b.Context(), at, req); err != nil || d.verdict != verdictGrant {
			b.Fatal(d, err)
		}
	}
}
