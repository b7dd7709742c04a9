package cluster

import (
	"slices"
	"testing"

	"ssi/cluster/member"
	"ssi/internal/id"
)

// A node whose preferred address is dead is reached at its other one, also by a
// daemon that knows of it only what it wrote down.
func TestSecondAddress(t *testing.T) {
	all := clusterOf(t, 2)
	first, second := all[0], all[1]
	second.crash()
	dead := newMachine(t).addr // nobody listens there
	second.change = func(c *Config) { c.Info.Addr, c.Info.Others = dead, []string{second.addr} }
	second.start()
	first.sees(2, member.Up)
	second.sees(2, member.Up)
	v := await(t, "the addresses", first.c.Members(), func(v *member.View) bool { return v.Get(2).Info.Addr == dead })
	if !slices.Equal(v.Get(2).Info.Others, []string{second.addr}) {
		t.Errorf("%+v", v.Get(2).Info)
	}
	until(t, "the addresses are written down", func() bool {
		f := first.c.readPeers()
		return f.Addrs[2] == dead && slices.Equal(f.Others[2], []string{second.addr})
	})
	first.halt()
	first.start()
	first.serves()
	first.sees(2, member.Up)
	if _, ok := first.c.ClockOffsets(first.ctx())[id.Node(2)]; !ok {
		t.Error("node 2 does not answer")
	}
}

// What a node tells of its machine reaches the others.
func TestMachineReports(t *testing.T) {
	all := clusterOf(t, 2)
	first, second := all[0], all[1]
	second.halt()
	second.change = func(c *Config) { c.Machine = func() []byte { return []byte("two") } }
	second.start()
	second.serves()
	until(t, "the report of node 2", func() bool {
		reports := first.c.Machines(first.ctx())
		one, ok := reports[1]
		return ok && one == nil && string(reports[2]) == "two"
	})
}
