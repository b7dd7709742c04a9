package machine

import (
	"bytes"
	"net/http"
	"net/netip"
	"testing"

	"ssi/cluster/registry"
	"ssi/internal/api"
)

func FuzzAdmit(f *testing.F) {
	f.Add(joinerBody(1))
	f.Add([]byte(`{"mac":"52:54:00:00:00:01","key":"AAAA","boot":"b"}`))
	w := newWorld(f)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	if err := w.table.editBoot(f.Context(), mac(1), func(Boot) (Boot, bool) { return Boot{At: w.clock.now(), IP: ip("10.0.0.2")}, true }); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		status, reply := w.adm.Admit(t.Context(), netip.Addr{}, body)
		a, err := parseAnswer(reply)
		if err != nil || len(a.Sealed) > 0 || status == 0 {
			t.Errorf("%q: %d %q, %v", body, status, reply, err)
		}
	})
}

func FuzzProgress(f *testing.F) {
	f.Add([]byte(`{"mac":"52:54:00:00:00:01","phase":"join","text":"x"}`))
	w := newWorld(f)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	f.Fuzz(func(t *testing.T, body []byte) {
		if status, _ := w.adm.Progress(t.Context(), ip("10.0.0.2"), body); status == http.StatusNoContent {
			t.Errorf("%q was taken from a stranger", body)
		}
		if p, err := parseProgress(body); err == nil && (len(p.Phase) > maxPhase || len(p.Text) > maxText || printable(p.Text, maxText) != p.Text) {
			t.Errorf("%q: %+v", body, p)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(mustBody(answer{State: stateWait, Why: "x"}))
	f.Add(mustBody(answer{State: stateAdmitted, Sealed: []byte("x")}))
	j := joinerOf(f, mac(1))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseAnswer(body)
		if err != nil {
			return
		}
		if _, err := open(j.key, j.mac, j.boot, a.Sealed); err == nil {
			t.Errorf("%q was opened", body)
		}
		if len(a.Why) > 2*maxText || printable(a.Why, 2*maxText) != a.Why {
			t.Errorf("%q: the console gets %q", body, a.Why)
		}
	})
}

func FuzzParseMAC(f *testing.F) {
	f.Add("52:54:00:77:00:02")
	f.Add("5254.0077.0002")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		if err != nil {
			return
		}
		var again MAC
		if err := again.UnmarshalText([]byte(m.String())); err != nil || again != m || m[0]&1 != 0 {
			t.Errorf("%q: %v, %v, %v", s, m, again, err)
		}
	})
}

func FuzzParseList(f *testing.F) {
	f.Add("52:54:00:77:00:02,52:54:00:77:00:03 node=2 name=a class=b arch=amd64 address=10.0.0.2 boot=uki args=x y # z\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseList("x", text)
		if err != nil {
			return
		}
		if len(list) == 0 || len(list) > MaxList {
			t.Errorf("%d machines", len(list))
		}
		// What was read can be added, or is refused; then nothing is changed.
		w := newWorld(t)
		old, err := readBook(w.reg.Stale())
		if err != nil {
			t.Fatal(err)
		}
		b := old.clone()
		if _, err := b.add(list, w.cluster, w.clock.now()); err != nil {
			return
		}
		checks, ops := b.diff(old)
		if _, err := w.reg.Txn(t.Context(), true, checks, ops...); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		read, err := readBook(w.reg.Stale())
		if err != nil || len(read.machines) != len(list) {
			t.Errorf("%q: %d machines, %v", text, len(read.machines), err)
		}
	})
}

// Whatever stands in the registry, nothing panics, and nothing is admitted that
// did not claim its boot.
func FuzzRecords(f *testing.F) {
	f.Add(encode(Machine{MACs: []MAC{mac(1)}, Node: 2, Standing: Known}), encode(Boot{Key: bytes.Repeat([]byte{1}, keySize), IP: ip("10.0.0.2")}), encode(Next{Left: 1}))
	f.Fuzz(func(t *testing.T, machine, boot, next []byte) {
		w := newWorld(t)
		for key, value := range map[string][]byte{keyMachine(mac(1)): machine, keyBoot(mac(1)): boot, keyNext: next} {
			if _, err := w.reg.Txn(t.Context(), true, nil, registry.PutOp(key, value, 0)); err != nil {
				t.Skip(err)
			}
		}
		w.adm.Ask(mac(1), "")
		if _, err := w.table.List(); err != nil {
			return
		}
		if a := w.ask("10.0.0.2", joinerOf(t, mac(1)).body()); a.State == stateAdmitted && len(w.boot(mac(1)).Sealed) == 0 {
			t.Errorf("admitted: %+v", a)
		}
		_ = w.table.asked(t.Context(), mac(2), "")
	})
}
