package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ssi/internal/vm"
)

const console = "console=ttyS0 panic=-1 quiet loglevel=4 "

// pair starts two machines that run the init of testdata.
func pair(t *testing.T, n *Net) (a, b *Machine) {
	t.Helper()
	k := CloudKernel(t)
	initrd := testInitrd(t, k, "failover", "net_failover", "virtio_net", "virtio_blk")
	disk := filepath.Join(t.TempDir(), "disk,1") // a name that QEMU's options could misread
	if err := vm.CreateDisk(disk, 1<<20); err != nil {
		t.Fatal(err)
	}
	spec := func(i int) vm.Spec {
		return vm.Spec{
			Name: fmt.Sprintf("n%d", i), Kernel: k.Image, Initrd: initrd, Append: fmt.Sprintf("%stest.ip=192.0.2.%d/24", console, i),
			NICs: []vm.NIC{{Segment: "lan"}},
		}
	}
	first := spec(1)
	first.Disks = []vm.Disk{{Path: disk}}
	a, b = n.Machine(first), n.Machine(spec(2))
	for _, m := range []*Machine{a, b} {
		m.Start()
	}
	for _, m := range []*Machine{a, b} {
		m.Say("INIT READY")
	}
	return a, b
}

// pings is how many of so many echoes from m to the machine with this number
// come back.
func (m *Machine) pings(to, count int) (answers string) {
	m.t.Helper()
	m.Type(fmt.Sprintf("ping 192.0.2.%d %d 300", to, count))
	return m.Say(fmt.Sprintf(`PING 192\.0\.2\.%d: (\d+) of %d\n`, to, count))[1]
}

// reach pings until an answer comes.
func (m *Machine) reach(to int) {
	m.t.Helper()
	for end := time.Now().Add(Patience); m.pings(to, 1) != "1"; {
		if time.Now().After(end) {
			m.t.Fatalf("machine %s does not reach machine n%d", m.Name(), to)
		}
	}
}

// Two machines on a segment, and everything that happens to machines.
func TestMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: machines take long, and -short is set")
	}
	n := New(t, 2)
	lan := n.Segment("lan")
	a, b := pair(t, n)
	portA, portB := vm.PortName("n1", 0), vm.PortName("n2", 0)
	fault := func(from, to string, f vm.Fault) {
		t.Helper()
		if err := lan.SetFault(from, to, f); err != nil {
			t.Fatal(err)
		}
	}
	a.reach(2)
	b.reach(1)

	// One way is cut: neither gets an answer.
	fault(portA, portB, vm.Fault{Cut: true})
	if got := a.pings(2, 2); got != "0" {
		t.Errorf("%s answers over a cut link", got)
	}
	if lost := lan.Stats()[portB].Lost; lost < 2 {
		t.Errorf("the segment lost %d frames", lost)
	}
	// The other way is not: the requests of n2 arrive at n1.
	before := lan.Stats()[portA]
	if got := b.pings(1, 2); got != "0" {
		t.Errorf("%s answers although no answer passes", got)
	}
	if after := lan.Stats()[portA]; after.Received < before.Received+2 || after.Lost != before.Lost {
		t.Errorf("n1 counted %+v, then %+v", before, after)
	}
	fault(portA, portB, vm.Fault{})
	a.reach(2)

	// Half of the frames are lost: of 24, some are and some are not. Answers that
	// came late do not count, so the segment is asked.
	fault(portA, portB, vm.Fault{Loss: 0.5})
	before = lan.Stats()[portB]
	if got := a.pings(2, 24); got == "24" {
		t.Errorf("%s of 24 answers with a loss of a half", got)
	}
	if after := lan.Stats()[portB]; after.Lost == before.Lost || after.Received == before.Received {
		t.Errorf("with a loss of a half, n2 counted %+v, then %+v", before, after)
	}
	lan.ClearFaults()

	// The cable is pulled.
	a.Link(0, false)
	a.awaitCarrier("0")
	if got := a.pings(2, 1); got != "0" {
		t.Errorf("%s answers without a cable", got)
	}
	a.Link(0, true)
	a.awaitCarrier("1")
	a.reach(2)

	// A stopped machine is silent and goes on as if nothing had been.
	b.Pause()
	if got := a.pings(2, 2); got != "0" {
		t.Errorf("%s answers of a stopped machine", got)
	}
	b.Resume()
	a.reach(2)

	// Power cut: what was written is on the disk.
	a.Type("write survivor")
	a.Say("WRITTEN")
	a.Cut()
	if a.On() {
		t.Error("a machine without power is on")
	}
	if got := b.pings(1, 1); got != "0" {
		t.Errorf("%s answers of a machine that is off", got)
	}
	a.Start()
	a.Say("INIT READY")
	a.Type("read")
	a.Say(`DISK survivor\.`)
	a.reach(2)

	// A restart without Spec.Reboot is an end.
	b.Type("reboot")
	b.Off()
	if _, err := b.Expect(t.Context(), "INIT READY"); !errors.Is(err, vm.ErrOff) {
		t.Errorf("it is %v", err)
	}
	a.shell(t)
}

func (m *Machine) awaitCarrier(want string) {
	m.t.Helper()
	for end := time.Now().Add(Patience); ; {
		m.Type("carrier")
		if m.Say(`CARRIER (\d)`)[1] == want {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("the carrier of %s is not %s", m.Name(), want)
		}
	}
}

// shell runs commands in a shell on the console.
func (m *Machine) shell(t *testing.T) {
	if _, err := os.Stat(busybox); err != nil {
		t.Logf("no commands were run in a machine: %v; apt-get install busybox-static", err)
		return
	}
	m.Type("shell")
	if out, status := m.Run("echo one; busybox echo two; (exit 3)"); out != "one\ntwo" || status != 3 {
		t.Errorf("the shell says %q, status %d", out, status)
	}
	if out, status := m.Run("busybox cat /proc/sys/kernel/osrelease"); out != CloudKernel(t).Version || status != 0 {
		t.Errorf("the kernel is %q, status %d", out, status)
	}
}

// A server in a network namespace of this computer serves a machine.
func TestNamespaceServes(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: machines take long, and -short is set")
	}
	n := New(t, 1)
	base := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(base, append([]byte("base"), make([]byte, 1<<20-4)...), 0o600); err != nil {
		t.Fatal(err)
	}
	ns := n.Netns("lan", "srv", "192.0.2.9/24")
	k := CloudKernel(t)
	m := n.Machine(vm.Spec{
		Name: "n1", Kernel: k.Image, Initrd: testInitrd(t, k, "failover", "net_failover", "virtio_net", "virtio_blk"),
		Append: console + "test.ip=192.0.2.1/24", NICs: []vm.NIC{{Segment: "lan"}},
		Disks:  []vm.Disk{{Path: Overlay(t, base), Format: "qcow2"}},
		Reboot: true,
	})
	m.Start()
	m.Say("INIT READY")
	var server net.PacketConn
	if err := ns.Do(func() (err error) { server, err = net.ListenPacket("udp4", "192.0.2.9:7"); return err }); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			k, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(b[:k], from)
		}
	}()
	m.reach(9)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	<-done

	// What is written to an overlay is not written to its base.
	m.Type("read")
	m.Say(`DISK base\.`)
	m.Type("write over")
	m.Say("WRITTEN")
	m.Type("read")
	m.Say(`DISK over\.`)
	if b, err := os.ReadFile(base); err != nil || string(b[:4]) != "base" {
		t.Errorf("the base has %q, %v", b[:4], err)
	}

	// With Spec.Reboot a reset starts it anew.
	ctx, cancel := within(t)
	defer cancel()
	if err := m.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Event(ctx, "RESET"); err != nil {
		t.Error(err)
	}
	m.Say("INIT READY")
	if err := m.PowerDown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Event(ctx, "POWERDOWN"); err != nil {
		t.Error(err)
	}
	if _, err := m.QMP(t.Context(), "no-such-command", nil); err == nil || !strings.Contains(err.Error(), "CommandNotFound") {
		t.Errorf("the monitor answers %v", err)
	}
	m.Type("poweroff")
	m.Off()
}

// Machines ask for an address as soon as their firmware runs, whichever it is.
func TestNetworkBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: machines take long, and -short is set")
	}
	for name, spec := range map[string]vm.Spec{
		"BIOS":      {},
		"UEFI":      {Firmware: vm.UEFI, NoROM: true},
		"UEFI-iPXE": {Firmware: vm.UEFI},
	} {
		t.Run(name, func(t *testing.T) {
			n := New(t, 1)
			host, err := n.Segment("lan").Host("watch")
			if err != nil {
				t.Fatal(err)
			}
			spec.Name, spec.Boot, spec.NICs = "n1", vm.BootNetwork, []vm.NIC{{Segment: "lan"}}
			m := n.Machine(spec)
			m.Start()
			ctx, cancel := context.WithTimeout(t.Context(), Patience)
			defer cancel()
			for {
				f, err := host.Recv(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if discover(f, m.MAC(0)) {
					break
				}
			}
		})
	}
}

// discover reports whether a frame is a DHCPDISCOVER of a boot firmware for this
// address (RFC 2131, RFC 4578).
func discover(f []byte, mac net.HardwareAddr) bool {
	const udp, bootp, chaddr = 14 + 20, 14 + 20 + 8, 28
	return len(f) > bootp+chaddr+6 && f[12] == 8 && f[13] == 0 && f[14] == 0x45 && f[23] == 17 && // IPv4, no options, UDP
		f[udp+3] == 67 && bytes.Equal(f[bootp+chaddr:bootp+chaddr+6], mac) && bytes.Contains(f, []byte("PXEClient"))
}
