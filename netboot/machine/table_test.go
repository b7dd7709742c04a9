package machine

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"ssi/cluster/registry"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

func specs(lines string) []api.MachineSpec {
	list, err := ParseList("list", lines)
	if err != nil {
		panic(err)
	}
	return list
}

func TestAddChoosesFreeNumbers(t *testing.T) {
	w := newWorld(t)
	w.cluster.given[3] = true // joined once without netboot
	added, err := w.table.Add(t.Context(), specs("52:54:00:00:00:10\n52:54:00:00:00:11 node=2\n52:54:00:00:00:12,52:54:00:00:01:12 name=db address=10.0.0.9\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, m := range added {
		got += fmt.Sprintf("%s %d %s; ", m.ID(), m.Node, m.Name)
	}
	if want := "52:54:00:00:00:10 4 node4; 52:54:00:00:00:11 2 node2; 52:54:00:00:00:12 5 db; "; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if m := w.find("52:54:00:00:01:12"); m.Node != 5 {
		t.Errorf("by its second MAC: %v", m)
	}
}

func TestNothingIsGivenTwice(t *testing.T) {
	w := newWorld(t)
	w.add(specs("52:54:00:00:00:10,52:54:00:00:01:10 node=2 name=db address=10.0.0.9")[0])
	before := w.reg.Stale().Revision()
	for _, c := range []struct{ line, text string }{
		{"52:54:00:00:00:11 node=2", "node number 2 is that of db (node 2, 52:54:00:00:00:10)"},
		{"52:54:00:00:00:11 name=db", "the name db is that of"},
		{"52:54:00:00:00:11 address=10.0.0.9", "the address 10.0.0.9 is that of"},
		{"52:54:00:00:00:10", "MAC address 52:54:00:00:00:10 is that of"},
		{"52:54:00:00:00:11,52:54:00:00:01:10", "MAC address 52:54:00:00:01:10 is that of"},
		{"52:54:00:00:00:11 node=1", "node 1 is UP"},
	} {
		// The line before it is good, and is not added either.
		_, err := w.table.Add(t.Context(), specs("52:54:00:00:00:99\n\n"+c.line))
		wantErr(t, err, errno.Exists, "line 3: "+c.text)
	}
	if after := w.reg.Stale().Revision(); after != before {
		t.Errorf("a refused list changed the table: revision %d, then %d", before, after)
	}
}

// Two nodes add machines at the same time: every machine gets a number of its own.
func TestTwoNodesAddAtOnce(t *testing.T) {
	w := newWorld(t)
	const each = 10
	var wg sync.WaitGroup
	for node := range 2 {
		table := w.another()
		wg.Go(func() {
			for i := range each {
				if _, err := table.Add(t.Context(), []api.MachineSpec{{MACs: []string{mac(node<<8 + i + 1).String()}}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b, err := w.table.Book()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[id.Node]bool{}
	for _, m := range b.Machines() {
		if seen[m.Node] {
			t.Errorf("number %d is given twice", m.Node)
		}
		seen[m.Node] = true
	}
	if len(seen) != 2*each {
		t.Errorf("%d machines, want %d", len(seen), 2*each)
	}
}

// A transaction made of an old table fails.
func TestOldTableLoses(t *testing.T) {
	w := newWorld(t)
	old, err := readBook(w.reg.Stale())
	if err != nil {
		t.Fatal(err)
	}
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	mine := old.clone()
	if _, err := mine.add([]api.MachineSpec{{MACs: []string{mac(2).String()}}}, w.cluster, w.clock.now()); err != nil {
		t.Fatal(err)
	}
	checks, ops := mine.diff(old)
	if _, err := w.reg.Txn(t.Context(), true, checks, ops...); !errno.Is(err, errno.Exists) {
		t.Errorf("got %v, want a conflict", err)
	}
}

func TestAllNumbersGiven(t *testing.T) {
	w := newWorld(t)
	for n := id.Node(1); n <= id.MaxNode; n++ {
		w.cluster.given[n] = true
	}
	_, err := w.table.Add(t.Context(), specs("52:54:00:00:00:10"))
	wantErr(t, err, errno.Full, "all 127 node numbers are given out")
	if m := w.add(specs("52:54:00:00:00:10 node=7")[0]); m.Node != 7 { // the operator's word
		t.Errorf("got node %d", m.Node)
	}
}

func TestChange(t *testing.T) {
	w := newWorld(t)
	w.add(specs("52:54:00:00:00:10 node=2")[0])
	name, class, node, empty := "db", "r730", id.Node(4), ""
	m, err := w.table.Change(t.Context(), "node2", api.MachineChange{Class: &class, Node: &node})
	if err != nil || m.Node != 4 || m.Name != "node4" || m.Class != "r730" {
		t.Errorf("got %+v, %v", m, err)
	}
	w.cluster.set(4, api.Up)
	if m, err = w.table.Change(t.Context(), "4", api.MachineChange{Name: &name}); err != nil || m.Name != "db" {
		t.Errorf("rename while up: %+v, %v", m, err)
	}
	_, err = w.table.Change(t.Context(), "db", api.MachineChange{MACs: []string{mac(5).String()}})
	wantErr(t, err, errno.Exists, "stay until it is down")
	w.cluster.set(4, api.Down)
	if m, err = w.table.Change(t.Context(), "db", api.MachineChange{MACs: []string{mac(5).String(), mac(6).String()}, Class: &empty}); err != nil || m.ID() != mac(5) || m.Class != "" {
		t.Errorf("another MAC: %+v, %v", m, err)
	}
	if b, _ := w.table.Book(); b.Lookup(MAC{0x52, 0x54, 0, 0, 0, 0x10}) != nil || len(b.Machines()) != 1 {
		t.Error("the old MAC is still known")
	}
	_, err = w.table.Change(t.Context(), "nosuch", api.MachineChange{})
	wantErr(t, err, errno.NotFound, `no machine of the table is "nosuch"`)
}

func TestRemove(t *testing.T) {
	w := newWorld(t)
	w.add(specs("52:54:00:00:00:10 node=2")[0])
	w.add(specs("52:54:00:00:00:11 node=3")[0])
	w.cluster.set(2, api.Up)
	_, _, err := w.table.Remove(t.Context(), api.MachineRemoveParams{Machine: "2"})
	wantErr(t, err, errno.Exists, "node2 (node 2, 52:54:00:00:00:10) is UP: shut it down first")
	if _, revoked, err := w.table.Remove(t.Context(), api.MachineRemoveParams{Machine: "2", Force: true}); err != nil || !revoked {
		t.Errorf("by force: revoked %v, %v", revoked, err)
	}
	if _, revoked, err := w.table.Remove(t.Context(), api.MachineRemoveParams{Machine: "node3"}); err != nil || revoked {
		t.Errorf("one that never joined: revoked %v, %v", revoked, err)
	}
	w.cluster.set(1, api.Down)
	w.add(specs("52:54:00:00:00:12 node=1")[0])
	_, _, err = w.table.Remove(t.Context(), api.MachineRemoveParams{Machine: "1", Force: true})
	wantErr(t, err, errno.Invalid, "is the node you are on")
	if fmt.Sprint(w.cluster.revoked) != "[2]" {
		t.Errorf("revoked: %v", w.cluster.revoked)
	}
	if list, err := w.table.List(); err != nil || len(list.Machines) != 1 {
		t.Errorf("left over: %+v, %v", list, err)
	}
}

func TestUnknownMachinesWait(t *testing.T) {
	w := newWorld(t)
	for n := range MaxPending + 3 {
		if err := w.table.asked(t.Context(), mac(n+1), "amd64"); err != nil {
			t.Fatal(err)
		}
		w.clock.forward(time.Second)
	}
	b, err := w.table.Book()
	if err != nil {
		t.Fatal(err)
	}
	if n, oldest := b.count(Pending); n != MaxPending || oldest.ID() != mac(4) {
		t.Errorf("%d wait, the oldest is %v; want %d from %v", n, oldest, MaxPending, mac(4))
	}
	m, err := w.table.Approve(t.Context(), mac(4).String(), api.MachineChange{})
	if err != nil || m.Standing != Known || m.Node != 2 || m.Name != "node2" {
		t.Errorf("approved: %+v, %v", m, err)
	}
	_, err = w.table.Approve(t.Context(), mac(4).String(), api.MachineChange{})
	wantErr(t, err, errno.Exists, "is known already")
	if _, err := w.table.Deny(t.Context(), mac(5).String()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.table.Deny(t.Context(), "52:54:00:ff:ff:ff"); err != nil {
		t.Errorf("deny one that never asked: %v", err)
	}
	_, err = w.table.Deny(t.Context(), "2")
	wantErr(t, err, errno.Exists, "remove it first: rmnode 2")
	_, err = w.table.Add(t.Context(), []api.MachineSpec{{MACs: []string{mac(5).String()}}})
	wantErr(t, err, errno.Exists, "was denied; `ssi node approve")
	for range 2 { // what asks again changes nothing
		if err := w.table.asked(t.Context(), mac(5), ""); err != nil {
			t.Fatal(err)
		}
	}
	if w.info(mac(5).String()).State != api.MachineDenied || w.info("2").State != api.MachineKnown {
		t.Errorf("states: %+v", w.info("2"))
	}
}

func TestNextMachines(t *testing.T) {
	w := newWorld(t)
	ask := func(n int) *Machine {
		t.Helper()
		if err := w.table.asked(t.Context(), mac(n), "arm64"); err != nil {
			t.Fatal(err)
		}
		return w.find(mac(n).String())
	}
	if m := ask(1); m.Standing != Pending {
		t.Errorf("before: %+v", m)
	}
	if _, err := w.table.AllowNext(t.Context(), api.MachineNextParams{Count: 2, For: time.Minute, Spec: api.MachineSpec{Class: "r730"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.table.Deny(t.Context(), mac(9).String()); err != nil {
		t.Fatal(err)
	}
	ask(9) // a denied one is not the next
	for _, n := range []int{1, 2} {
		if m := ask(n); m.Standing != Known || m.Node != id.Node(n+1) || m.Class != "r730" || m.Arch != "arm64" {
			t.Errorf("machine %d: %+v", n, m)
		}
	}
	if m := ask(3); m.Standing != Pending {
		t.Errorf("one too many: %+v", m)
	}
	if _, err := w.table.AllowNext(t.Context(), api.MachineNextParams{Count: 2, For: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if list, err := w.table.List(); err != nil || list.Next == nil || list.Next.Left != 2 {
		t.Errorf("open: %+v, %v", list.Next, err)
	}
	w.clock.forward(time.Minute)
	if m := ask(3); m.Standing != Pending {
		t.Errorf("too late: %+v", m)
	}
	for _, p := range []api.MachineNextParams{
		{Count: -1}, {Count: 200, For: time.Minute}, {Count: 1}, {Count: 1, For: 25 * time.Hour},
		{Count: 1, For: time.Minute, Spec: api.MachineSpec{Name: "x"}}, {Count: 1, For: time.Minute, Spec: api.MachineSpec{Boot: "x"}},
	} {
		if _, err := w.table.AllowNext(t.Context(), p); !errno.Is(err, errno.Invalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if _, err := w.table.AllowNext(t.Context(), api.MachineNextParams{}); err != nil {
		t.Fatal(err)
	}
	if list, err := w.table.List(); err != nil || list.Next != nil {
		t.Errorf("ended: %+v, %v", list.Next, err)
	}
}

func TestBadSpecs(t *testing.T) {
	w := newWorld(t)
	ok := mac(1).String()
	for _, c := range []struct {
		spec api.MachineSpec
		text string
	}{
		{api.MachineSpec{}, "needs a MAC address"},
		{api.MachineSpec{MACs: []string{"x"}}, `"x" is no MAC address`},
		{api.MachineSpec{MACs: []string{"00:00:00:00:00:00"}}, "empty MAC"},
		{api.MachineSpec{MACs: []string{"ff:ff:ff:ff:ff:ff"}}, "group address"},
		{api.MachineSpec{MACs: []string{"52:54:00:00:00:00:00:01"}}, "is no MAC"},
		{api.MachineSpec{MACs: []string{ok, ok}}, "given twice"},
		{api.MachineSpec{MACs: make([]string, 9)}, "at most 8"},
		{api.MachineSpec{MACs: []string{ok}, Node: 128}, "128 is no node number"},
		{api.MachineSpec{MACs: []string{ok}, Name: "a.b"}, "is no name"},
		{api.MachineSpec{MACs: []string{ok}, Name: "7"}, "not digits only"},
		{api.MachineSpec{MACs: []string{ok}, Name: strings.Repeat("a", 64)}, "is no name"},
		{api.MachineSpec{MACs: []string{ok}, Class: "../x"}, "no hardware class"},
		{api.MachineSpec{MACs: []string{ok}, Arch: "vax"}, "no architecture"},
		{api.MachineSpec{MACs: []string{ok}, Address: "fe80::1"}, "no IPv4 address"},
		{api.MachineSpec{MACs: []string{ok}, Address: "224.0.0.1"}, "no IPv4 address"},
		{api.MachineSpec{MACs: []string{ok}, Boot: "tape"}, "no way to boot"},
		{api.MachineSpec{MACs: []string{ok}, Args: "a\nboot"}, "character '\\n'"},
		{api.MachineSpec{MACs: []string{ok}, Args: "${x}"}, "character '$'"},
		{api.MachineSpec{MACs: []string{ok}, Args: "x=ssi1-abc"}, "no place for a secret"},
		{api.MachineSpec{MACs: []string{ok}, Args: strings.Repeat("a", 513)}, "longer than 512"},
	} {
		_, err := w.table.Add(t.Context(), []api.MachineSpec{c.spec})
		wantErr(t, err, errno.Invalid, c.text)
		if err != nil && strings.Contains(err.Error(), "ssi1-abc") {
			t.Error("the message holds the secret")
		}
	}
	if w.reg.changes() != 0 {
		t.Error("a refused machine changed the table")
	}
}

func TestParseList(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "list: there is no machine in it"},
		{"# x\n\n52:54:00:00:00:10 node=x", "list: line 3:"},
		{"52:54:00:00:00:10 7", `list: line 1: "7" is no KEY=VALUE`},
		{"52:54:00:00:00:10 name=", `list: line 1: "name=" is no KEY=VALUE`},
		{"52:54:00:00:00:10 name=a name=b", "list: line 1: name= is given twice"},
		{"52:54:00:00:00:10 colour=red", `list: line 1: there is no "colour"`},
		{"52:54:00:00:00:10 boot=tape", `list: line 1: "tape" is no way to boot`},
		{strings.Repeat("52:54:00:00:00:10\n", MaxList+1), "list: line 121: more than 120"},
		{strings.Repeat("#", maxListing+1), "list: longer than"},
	} {
		_, err := ParseList("list", c.text)
		wantErr(t, err, errno.Invalid, c.want)
	}
	if got := specs("\t52:54:00:00:00:10\tnode=3  args=a=b c  # x")[0]; got.Node != 3 || got.Args != "a=b c" || got.Line != 1 {
		t.Errorf("got %+v", got)
	}
}

// The packet loops look up machines without reading the table again.
func TestBookIsCached(t *testing.T) {
	w := newWorld(t)
	w.add(api.MachineSpec{MACs: []string{mac(1).String()}})
	first, _ := w.table.Book()
	again, _ := w.table.Book()
	if first != again {
		t.Error("the same table was read twice")
	}
	if _, err := w.another().Deny(t.Context(), mac(2).String()); err != nil { // by another node
		t.Fatal(err)
	}
	if b, _ := w.table.Book(); b == first || b.Lookup(mac(2)) == nil {
		t.Error("the change of another node is not seen")
	}
}

func TestDamagedRecords(t *testing.T) {
	for key, value := range map[string]string{
		keyMachine(mac(1)): "{", keyMachine(mac(2)): `{"macs":["52:54:00:00:00:01"]}`, keyMachine(mac(3)): `{}`, keyNext: "[",
	} {
		w := newWorld(t)
		if _, err := w.reg.Txn(context.Background(), true, nil, registry.PutOp(key, []byte(value), 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.table.List(); err == nil || !strings.Contains(err.Error(), "registry key "+key+" is damaged") {
			t.Errorf("%s: %v", key, err)
		}
		if a := w.adm.Ask(mac(1), ""); a.Boot || !strings.Contains(a.Why, "cannot read") {
			t.Errorf("%s: a machine is booted: %+v", key, a)
		}
	}
}
