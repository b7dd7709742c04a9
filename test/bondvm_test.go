package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"ssi/internal/vm"
	"ssi/internal/vmtest"
	"ssi/netboot/initramfs"
)

// bondConfig is /etc/ssi/ssi.toml of a machine with two interconnects, which are
// bonds: one of NICs on a switch, one of cables to the other machine, because the
// emulated switch speaks no LACP.
const bondConfig = `name = "bonded%[1]d"
max_voters = 1
log_level = "error"

[[interface]]
name = "ic0"
address = ["10.56.0.%[1]d/24"]
role = "interconnect"
[interface.bond]
miimon = 50
members = ["52:54:00:56:0%[1]d:00", "52:54:00:56:0%[1]d:01"]

[[interface]]
name = "ic1"
address = ["10.57.0.%[1]d/24"]
role = "interconnect"
[interface.bond]
mode = "802.3ad"
miimon = 50
members = ["52:54:00:56:0%[1]d:02", "52:54:00:56:0%[1]d:03"]
`

// bonded is a cluster of two machines without disks.
type bonded struct {
	*machines
	nodes [2]*vmtest.Machine
}

func newBonded(t *testing.T) *bonded {
	t.Helper()
	b := &bonded{machines: &machines{Net: vmtest.New(t, 2), t: t}}
	const busybox = "/bin/busybox"
	utilities, err := exec.CommandContext(t.Context(), busybox, "--list").Output()
	if err != nil {
		t.Skipf("skipped: without busybox the machines have no shell: apt-get install busybox-static (%v)", err)
	}
	b.kernel, b.binary = vmtest.CloudKernel(t), vmtest.Binary(t)
	for i := range b.nodes {
		c := initramfs.Config{
			Binary: b.binary, Tree: b.kernel.Modules, Classes: []string{"vm"},
			Dirs:     []string{"/etc/ssi", "/root", "/tmp", "/var/lib/ssi", "/bin", "/usr/bin", "/usr/sbin"},
			Programs: []initramfs.Program{{Source: busybox}},
			Files: []initramfs.File{
				{Path: "/etc/ssi/ssi.toml", Data: fmt.Appendf(nil, bondConfig, i+1)},
				{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\n")},
				{Path: "/etc/group", Data: []byte("root:x:0:\ntty:x:5:\n")},
			},
			Links: []initramfs.Link{{Path: "/usr/bin/ssi", Target: "/sbin/ssi"}},
		}
		for _, name := range strings.Fields(string(utilities)) {
			if name != "busybox" && !strings.Contains(name, "/") {
				c.Links = append(c.Links, initramfs.Link{Path: "/bin/" + name, Target: "busybox"})
			}
		}
		image := filepath.Join(t.TempDir(), "initrd")
		if _, err := initramfs.Build(t.Context(), c, image); err != nil {
			t.Fatal(err)
		}
		spec := vm.Spec{
			Name: fmt.Sprintf("bonded%d", i+1), Memory: 384, Kernel: b.kernel.Image, Initrd: image,
			Append: "console=ttyS0 rdinit=/sbin/ssi panic=-1 quiet loglevel=4 ssi.console=shell",
			// 802.3ad works between ports that know their speed and are full duplex.
			Extra: []string{"-global", "virtio-net-pci.speed=1000", "-global", "virtio-net-pci.duplex=full"},
		}
		for nic, segment := range []string{"ic", "ic", "cable0", "cable1"} {
			spec.NICs = append(spec.NICs, vm.NIC{Segment: segment, MAC: net.HardwareAddr{0x52, 0x54, 0, 0x56, byte(i + 1), byte(nic)}})
		}
		b.nodes[i] = b.Machine(spec)
	}
	b.found()
	return b
}

// found starts them and makes them a cluster.
func (b *bonded) found() {
	b.t.Helper()
	for _, m := range b.nodes {
		m.Start()
	}
	for _, m := range b.nodes {
		b.shell(m)
	}
	for _, m := range b.nodes {
		b.await(m, "ip addr show dev ic0 2>/dev/null | grep -q 10.56 && ip addr show dev ic1 2>/dev/null | grep -q 10.57")
	}
	first, second := b.nodes[0], b.nodes[1]
	b.run(first, "ssi cluster init --name bonds --node 1")
	b.sees(first, 1, "UP")
	token := regexp.MustCompile(`ssi1-\S+`).FindString(b.run(first, "ssi cluster token"))
	b.run(second, "(umask 077; echo "+token+" 10.56.0.1 >/etc/ssi/join)")
	b.sees(first, 2, "UP")
	b.sees(second, 1, "UP")
}

// await waits in the shell of a machine for a condition.
func (b *bonded) await(on *vmtest.Machine, condition string) {
	b.t.Helper()
	b.run(on, "until "+condition+"; do sleep 0.1; done")
}

// moves waits until so many bytes more came back over the stream.
func (b *bonded) moves(bytes int) {
	b.t.Helper()
	b.run(b.nodes[0], fmt.Sprintf(`n=$(($(wc -c </tmp/back)+%d)); until [ $(wc -c </tmp/back) -ge $n ]; do sleep 0.1; done`, bytes))
}

// begin begins to watch both machines and to send a stream; what it returns ends
// that and checks that the stream is whole and that nothing else happened.
func (b *bonded) begin() (check func()) {
	b.t.Helper()
	b.run(b.nodes[0], "rm -f /tmp/stop /tmp/status /tmp/back")
	b.stream()
	first, second := b.quiet(b.nodes[0]), b.quiet(b.nodes[1])
	return func() {
		b.t.Helper()
		first()
		second()
		b.stop()
	}
}

// stream begins to send bytes to node 2 and back, until stop.
func (b *bonded) stream() {
	b.t.Helper()
	b.run(b.nodes[0], `({ while [ ! -e /tmp/stop ]; do head -c 16384 /dev/urandom; usleep 20000; done | tee /tmp/sent | ssi onnode 2 cat >/tmp/back; echo $? >/tmp/status; } &)`)
	b.await(b.nodes[0], `[ -s /tmp/back ]`)
	b.moves(1 << 16)
}

// stop ends the stream and compares what was sent with what came back.
func (b *bonded) stop() {
	b.t.Helper()
	b.run(b.nodes[0], `touch /tmp/stop; until [ -s /tmp/status ]; do sleep 0.1; done`)
	if out := b.run(b.nodes[0], `cat /tmp/status; sha256sum </tmp/sent; sha256sum </tmp/back`); !regexp.MustCompile(`^0\s+(\w{64})\s+-\s+(\w{64})\s+-\s*$`).MatchString(out) {
		b.t.Errorf("the stream ended with %q", out)
	} else if w := strings.Fields(out); w[1] != w[3] {
		b.t.Errorf("what came back is not what was sent:\n%s", out)
	}
	b.t.Log("bytes each way: " + strings.TrimSpace(b.run(b.nodes[0], "wc -c </tmp/sent")))
}

// calm is what must not change while a link is cut.
type calm struct {
	transition  string   // of the membership
	resets      string   // TCP connections reset, and resets sent (proc_net_snmp: EstabResets, OutRsts)
	connections []string // between the nodes
}

func (b *bonded) calm(on *vmtest.Machine) calm {
	b.t.Helper()
	const tcp = `awk '$4=="01" && ($2 ~ /:07C1$/ || $3 ~ /:07C1$/) {print $2 "-" $3}' /proc/net/tcp /proc/net/tcp6`
	return calm{
		transition:  regexp.MustCompile(`transition: +\d+`).FindString(b.run(on, "ssi cluster -v")),
		resets:      strings.TrimSpace(b.run(on, `awk '/^Tcp:/ {r=$9 " " $15} END {print r}' /proc/net/snmp`)),
		connections: strings.Fields(b.run(on, tcp)),
	}
}

// quiet begins to watch a machine; the function that it returns checks that nothing happened
// to the cluster since.
func (b *bonded) quiet(on *vmtest.Machine) (check func()) {
	b.t.Helper()
	b.run(on, "(ssi cluster events </dev/null >/tmp/events 2>&1 &)")
	before := b.calm(on)
	if before.transition == "" || before.resets == "" || len(before.connections) < 2 {
		b.t.Fatalf("%s: %+v", on.Name(), before)
	}
	return func() {
		b.t.Helper()
		after := b.calm(on)
		if after.transition != before.transition || after.resets != before.resets {
			b.t.Errorf("%s: before %+v, after %+v", on.Name(), before, after)
		}
		for _, c := range before.connections {
			if !slices.Contains(after.connections, c) {
				b.t.Errorf("%s: the connection %s is gone; there are %q", on.Name(), c, after.connections)
			}
		}
		if events := b.run(on, "cat /tmp/events"); strings.TrimSpace(events) != "" {
			b.t.Errorf("%s: node suspected or fenced:\n%s", on.Name(), events)
		}
	}
}

// active is the NIC that a bond works over: the last byte of its address.
func (b *bonded) active(on *vmtest.Machine) int {
	b.t.Helper()
	mac := b.run(on, "cat /sys/class/net/$(cat /sys/class/net/ic0/bonding/active_slave)/bonding_slave/perm_hwaddr")
	var nic int
	if _, err := fmt.Sscanf(strings.TrimSpace(mac), "52:54:00:56:01:%x", &nic); err != nil {
		b.t.Fatalf("active member %q: %v", mac, err)
	}
	return nic
}

// TestBondOfMachines: a cable of the bond over which two machines are a cluster is
// pulled, and then the other one. The connections stay, nobody is suspected, and
// a stream is whole. When the whole bond is dead, the cluster goes on over the second
// interconnect; there the same is true of 802.3ad.
func TestBondOfMachines(t *testing.T) {
	b := newBonded(t)
	first, second := b.nodes[0], b.nodes[1]
	check := b.begin()
	for range 2 {
		nic := b.active(first)
		first.Link(nic, false)
		b.await(first, fmt.Sprintf(`! grep -q :0%d$ /sys/class/net/$(cat /sys/class/net/ic0/bonding/active_slave)/bonding_slave/perm_hwaddr`, nic))
		b.moves(1 << 18)
		first.Link(nic, true)
		b.await(first, `[ "$(cat /sys/class/net/eth?/bonding_slave/mii_status | grep -c up)" = 4 ]`)
	}
	check()
	b.until(second, "ssi cluster -v | grep -c 'interconnect, active-backup over eth'", "2")
	b.until(second, "ssi onnode 2 cat /proc/cluster/events", "of ic0: no carrier")

	before := b.calm(first)
	b.cable(0, false)
	b.cable(1, false)
	b.await(first, `ssi onnode 2 true 2>/dev/null`)
	b.sees(first, 2, "UP")
	t.Logf("over the second interconnect: before %+v, after %+v", before, b.calm(first))

	// What was open over the first interconnect ends by its timeouts.
	for _, m := range b.nodes {
		b.await(m, `! awk '$4=="01" && $2 ~ /380A:/ {print}' /proc/net/tcp /proc/net/tcp6 | grep -q .`)
	}
	b.works(2)
	check = b.begin()
	for _, nic := range []int{2, 3} {
		b.cable(nic, false)
		b.works(1)
		b.moves(1 << 18)
		b.cable(nic, true)
		b.works(2)
	}
	check()
}

// works waits until so many ports of 802.3ad collect and distribute on both ends:
// 0x3f is that a port and all that leads to it is well (IEEE 802.1AX, 6.4.2.3).
func (b *bonded) works(ports int) {
	b.t.Helper()
	for _, m := range b.nodes {
		b.await(m, fmt.Sprintf(`[ "$(cd /sys/class/net/ic1; for p in lower_*/bonding_slave; do cat $p/mii_status $p/ad_actor_oper_port_state $p/ad_partner_oper_port_state | tr '\n' ' '; echo; done | grep -c 'up 63 63')" = %d ]`, ports))
	}
}

// cable pulls a cable between the two machines or puts it back: both see it at
// once.
func (b *bonded) cable(nic int, up bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), vmtest.Patience)
	defer cancel()
	var errs [2]error
	var wg sync.WaitGroup
	for i, m := range b.nodes {
		wg.Go(func() { errs[i] = m.SetLink(ctx, nic, up) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		b.t.Fatal(err)
	}
}
