package vm

import (
	"net"
	"strings"
	"testing"
)

func TestArgs(t *testing.T) {
	mac := net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 2}
	common := "-nodefaults -no-user-config -display none -vga none -machine pc,graphics=off,accel=tcg "
	lines := " -chardev socket,id=s0,fd=3 -serial chardev:s0 -chardev socket,id=q0,fd=4 -mon chardev=q0,mode=control -device virtio-rng-pci "
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{
			Spec{Name: "n1", Kernel: "/k,1", Initrd: "/i", Append: "console=ttyS0 quiet", NICs: []NIC{{Segment: "lan", MAC: mac}}, Disks: []Disk{{Path: "/d,1"}}},
			"-name n1 " + common + "-cpu qemu64 -smp 1 -m 256" + lines + "-no-reboot -kernel /k,1 -initrd /i -append console=ttyS0 quiet" +
				" -netdev stream,id=n0,server=off,addr.type=fd,addr.str=5 -device virtio-net-pci,id=nic0,netdev=n0,mac=52:54:00:77:00:02,romfile=" +
				" -drive if=none,id=d0,format=raw,file=/d,,1 -device virtio-blk-pci,id=disk0,drive=d0",
		},
		{
			Spec{Name: "n2", Memory: 512, CPUs: 2, CPU: "max", Boot: BootNetwork, Reboot: true, NICs: []NIC{{Segment: "lan", MAC: mac}, {Segment: "lan", MAC: mac, Model: "e1000"}}, Extra: []string{"-S"}},
			"-name n2 " + common + "-cpu max -smp 2 -m 512" + lines + "-boot strict=on" +
				" -netdev stream,id=n0,server=off,addr.type=fd,addr.str=5 -device virtio-net-pci,id=nic0,netdev=n0,mac=52:54:00:77:00:02,bootindex=1" +
				" -netdev stream,id=n1,server=off,addr.type=fd,addr.str=6 -device e1000,id=nic1,netdev=n1,mac=52:54:00:77:00:02,bootindex=2 -S",
		},
		{
			Spec{Name: "n3", Boot: BootDisk, Firmware: UEFI, NoROM: true, Disks: []Disk{{Path: "/d", Format: "qcow2", Model: "scsi-hd"}}},
			"-name n3 " + common + "-cpu qemu64 -smp 1 -m 256" + lines + "-no-reboot" +
				" -drive if=pflash,unit=0,format=raw,readonly=on,file=/code -drive if=pflash,unit=1,format=raw,file=/vars -boot strict=on" +
				" -drive if=none,id=d0,format=qcow2,file=/d -device scsi-hd,id=disk0,drive=d0,bootindex=1",
		},
	} {
		spec, err := c.spec.check()
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(spec.args(firmware{code: "/code"}, "/vars", files{serial: 3, monitor: 4, nics: []int{5, 6}}), " ")
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", spec.Name, got, c.want)
		}
	}
}

func TestBadSpecs(t *testing.T) {
	nic := []NIC{{Segment: "lan"}}
	for want, s := range map[string]Spec{
		"its name must be":           {Kernel: "k"},
		"'-'":                        {Name: "N1", Kernel: "k"},
		"no kernel":                  {Name: "n1"},
		"memory 1 MiB":               {Name: "n1", Kernel: "k", Memory: 1},
		"-1 CPUs":                    {Name: "n1", Kernel: "k", CPUs: -1},
		"no CPU model":               {Name: "n1", Kernel: "k", CPU: "max,+x"},
		"unknown firmware":           {Name: "n1", Kernel: "k", Firmware: 7},
		"unknown way":                {Name: "n1", Boot: 7},
		"no NIC":                     {Name: "n1", Boot: BootNetwork},
		"without iPXE":               {Name: "n1", Boot: BootNetwork, NICs: nic, NoROM: true},
		"no disk to boot":            {Name: "n1", Boot: BootDisk},
		"for BootKernel only":        {Name: "n1", Boot: BootNetwork, NICs: nic, Append: "x"},
		"9 NICs":                     {Name: "n1", Kernel: "k", NICs: make([]NIC, 9)},
		"9 disks":                    {Name: "n1", Kernel: "k", Disks: make([]Disk, 9)},
		`"" is no name`:              {Name: "n1", Kernel: "k", NICs: []NIC{{}}},
		"NIC 0: \"x,y\" is no":       {Name: "n1", Kernel: "k", NICs: []NIC{{Segment: "lan", Model: "x,y"}}},
		"no address of":              {Name: "n1", Kernel: "k", NICs: []NIC{{Segment: "lan", MAC: net.HardwareAddr{1, 0, 0, 0, 0, 0}}}},
		"disk 0 has no file":         {Name: "n1", Kernel: "k", Disks: []Disk{{}}},
		`format "vmdk"`:              {Name: "n1", Kernel: "k", Disks: []Disk{{Path: "d", Format: "vmdk"}}},
		"disk 0: \"a b\" is no":      {Name: "n1", Kernel: "k", Disks: []Disk{{Path: "d", Model: "a b"}}},
		"more than 8; disk 0 has no": {Name: "n1", Kernel: "k", NICs: make([]NIC, 9)[:0], Disks: make([]Disk, 9)},
	} {
		if _, err := s.check(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v, want one line with %q", s, err, want)
		}
	}
}

func TestNetwork(t *testing.T) {
	if _, err := New("/nonexistent", 1); err == nil {
		t.Error("a network without a directory")
	}
	n, err := New(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	spec := Spec{Name: "n1", Kernel: "k", NICs: []NIC{{Segment: "lan"}, {Segment: "san"}}}
	m, err := n.Machine(spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Machine(spec); err == nil {
		t.Error("two machines with one name")
	}
	spec.Name, spec.NICs[0].MAC = "n2", m.MAC(1)
	if _, err := n.Machine(spec); err == nil || !strings.Contains(err.Error(), "another one's address") {
		t.Errorf("two machines with one address: %v", err)
	}
	if s, err := n.Segment("lan"); err != nil || s.Stats()[PortName("n1", 0)] != (Stats{}) || len(s.Stats()) != 1 {
		t.Errorf("segment lan: %v, %v", s, err)
	}
	if got := len(n.Segments()); got != 2 {
		t.Errorf("%d segments", got)
	}
	for _, bad := range []string{"", "-x", "A", strings.Repeat("x", maxName+1)} {
		if _, err := n.Segment(bad); err == nil {
			t.Errorf("a segment named %q", bad)
		}
	}
	// A machine that is off.
	if m.On() {
		t.Error("a machine is on by itself")
	}
	if err := m.Kill(); err != nil {
		t.Error(err)
	}
	if err := m.Wait(within(t)); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{"Send": m.Send("x"), "Stop": m.Stop(within(t)), "Event": m.Event(within(t), "RESET")} {
		if err == nil || !strings.HasPrefix(err.Error(), "machine n1: ") || !strings.HasSuffix(err.Error(), ErrOff.Error()) {
			t.Errorf("%s of a machine that is off: %v", what, err)
		}
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(within(t)); err == nil {
		t.Error("a machine of a closed network goes on")
	}
	if _, err := n.Machine(Spec{Name: "n3", Kernel: "k"}); err == nil {
		t.Error("a closed network gets machines")
	}
	if _, err := n.Segment("new"); err == nil {
		t.Error("a closed network gets segments")
	}
}
