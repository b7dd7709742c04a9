package dhcp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// The options that firmware sends with DISCOVER, with the message type left out:
// optionsIPXE and optionsEFI64 as recorded from QEMU's iPXE and OVMF, the others
// made after them.
const (
	uuidOption = "61 11 00 00112233445566778899aabbccddeeff "
	// "PXEClient:Arch:00000:UNDI:002001"
	classBIOS  = "3c 20 505845436c69656e743a417263683a30303030303a554e44493a303032303031 "
	classEFI64 = "3c 20 505845436c69656e743a417263683a30303030373a554e44493a303033303136 "
	classEFI32 = "3c 20 505845436c69656e743a417263683a30303030363a554e44493a303033303136 "
	classARM64 = "3c 20 505845436c69656e743a417263683a30303031313a554e44493a303033303136 "
	// "HTTPClient:Arch:00016:UNDI:003016"
	classHTTP64 = "3c 21 48545450436c69656e743a417263683a30303031363a554e44493a303033303136 "

	optionsIPXE = "39 02 05c0 5d 02 0000 5e 03 010201 " + classBIOS + "4d 04 69505845 " +
		"37 17 0103060 70c0f111a2b3c4243 7780818283848586 87afcb " +
		"af 30 b105011af41000 eb03010000 170101 220101 130101 110101 270101 190101 290101 100102 210101 150101 180101 1b0101 120101 " +
		"3d 07 01525400770002 61 11 00 00000000000000000000000000000000 "
	optionsIPXEonEFI = "39 02 05c0 5d 02 0007 5e 03 01030a " + classEFI64 + "4d 04 69505845 " +
		"37 03 010306 af 06 b103010000 00 " + uuidOption
	optionsBIOS = "37 19 0102030506 0b0c0d0f1011122b3643 3c4380818283848586 87 39 02 04ec " +
		uuidOption + "5d 02 0000 5e 03 010201 " + classBIOS
	optionsEFI64 = "39 02 05c0 37 23 0102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687 " +
		"61 11 00 00000000000000000000000000000000 5e 03 010300 5d 02 0007 " +
		"3c 20 505845436c69656e743a417263683a30303030373a554e44493a303033303030 "
)

func TestFirmware(t *testing.T) {
	for _, c := range []struct {
		name    string
		options string
		want    string // options 43 60 66 67 97 175 in hex, "-" is none; class and file as text
	}{
		{"iPXE", optionsIPXE, "- - 10.77.0.1 http://10.77.0.1/boot.ipxe uuid b00101"},
		{"iPXE on UEFI", optionsIPXEonEFI, "- - 10.77.0.1 http://10.77.0.1/boot.ipxe uuid b00101"},
		{"BIOS", optionsBIOS, "060108ff PXEClient 10.77.0.1 undionly.kpxe uuid -"},
		{"UEFI x64", optionsEFI64, "060108ff PXEClient 10.77.0.1 snponly.efi uuid -"},
		{"UEFI x64, type 9", uuidOption + "5d 02 0009 " + classEFI64, "060108ff PXEClient 10.77.0.1 snponly.efi uuid -"},
		{"UEFI ia32", uuidOption + "5d 02 0006 " + classEFI32, "060108ff PXEClient 10.77.0.1 ia32/snponly.efi uuid -"},
		{"UEFI arm64", uuidOption + "5d 02 000b " + classARM64, "060108ff PXEClient 10.77.0.1 arm64/snponly.efi uuid -"},
		{"HTTP boot x64", uuidOption + "5d 02 0010 " + classHTTP64, "- HTTPClient 10.77.0.1 http://10.77.0.1/ssi.efi uuid -"},
		{"HTTP boot arm64", "5d 02 0013 " + classHTTP64, "- HTTPClient 10.77.0.1 http://10.77.0.1/arm64/ssi.efi - -"},
		{"HTTP boot ia32, no loader", "5d 02 000f " + classHTTP64, "- - - - - -"},
		{"arm32, unknown", "5d 02 000a " + classARM64, "- - - - - -"},
		{"udhcpc", "3c 0c 756468637020312e33352e30 37 07 0103060c0f1c2a", "- - - - - -"},
		{"nothing", "", "- - - - - -"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, testConfig(nodes()))
			offer := r.want("offer 10.77.0.10", message{kind: discover, mac: mac(3), options: c.options})
			if got := boots(offer.Message); got != c.want {
				t.Errorf("it boots\n%s, want\n%s", got, c.want)
			}
			file := string(offer.Message.Options[67])
			if m := offer.Message; m.BootFileName != file || file != "" && m.ServerHostName != "10.77.0.1" || addrOf(m.ServerIPAddr) != ip4("10.77.0.1") {
				t.Errorf("header: file %q, server %q %v", m.BootFileName, m.ServerHostName, m.ServerIPAddr)
			}
			// A machine that may not boot gets an address and nothing to boot.
			offer = r.want("offer 10.77.0.200", message{kind: discover, mac: mac(9), options: c.options})
			if offer.Message.BootFileName != "" || offer.Message.Options.Has(dhcpv4.OptionBootfileName) {
				t.Errorf("a machine that waits for approval boots %q", offer.Message.BootFileName)
			}
		})
	}
}

// boots lists the options of network boot.
func boots(m *dhcpv4.DHCPv4) string {
	var s []string
	for _, code := range []uint8{43, 60, 66, 67, 97, 175} {
		v, ok := m.Options[code]
		switch {
		case !ok:
			s = append(s, "-")
		case code == 97:
			s = append(s, "uuid")
		case code == 43 || code == 175:
			s = append(s, fmt.Sprintf("%x", v))
		default:
			s = append(s, string(v))
		}
	}
	return strings.Join(s, " ")
}

// What Machines gives counts before the loaders, for those too who wait.
func TestBootfile(t *testing.T) {
	machines := nodes()
	machines[mac(9)] = Machine{State: Pending, Bootfile: "http://10.77.0.1/wait.ipxe"}
	machines[mac(3)] = Machine{State: Boot, Bootfile: "http://10.77.0.1/" + strings.Repeat("x", 150)}
	machines[mac(4)] = Machine{State: Boot, Bootfile: strings.Repeat("x", 256)}
	r := newRig(t, testConfig(machines))
	if m := r.send(message{kind: discover, mac: mac(9), options: optionsIPXE}).Message; m.BootFileName != "http://10.77.0.1/wait.ipxe" {
		t.Errorf("who waits boots %q", m.BootFileName)
	}
	if m := r.send(message{kind: discover, mac: mac(3), options: optionsIPXE}).Message; m.BootFileName != "" || len(m.Options[67]) != 17+150 {
		t.Errorf("a long URL: header %q, option %q", m.BootFileName, m.Options[67])
	}
	if m := r.send(message{kind: discover, mac: mac(4), options: optionsIPXE}).Message; m.Options.Has(dhcpv4.OptionBootfileName) || !r.saw(NoLoader) {
		t.Errorf("too long a URL: %q, events %v", m.Options[67], r.last.Events)
	}
}

func TestProxy(t *testing.T) {
	cfg := testConfig(nodes())
	cfg.Mode, cfg.Subnets, cfg.Store = Proxy, nil, nil
	for _, c := range []struct {
		name string
		m    message
		want string
		boot string
		to   string
	}{
		{"iPXE", message{kind: discover, mac: mac(3), options: optionsIPXE}, "offer", "- PXEClient 10.77.0.1 http://10.77.0.1/boot.ipxe uuid b00101", "255.255.255.255:68"},
		{"BIOS", message{kind: discover, mac: mac(3), options: optionsBIOS}, "offer", "060108ff PXEClient 10.77.0.1 undionly.kpxe uuid -", "255.255.255.255:68"},
		{"UEFI at 4011", message{kind: request, mac: mac(3), options: optionsEFI64, port: 4011, client: "10.77.0.33", from: "10.77.0.33:68"}, "ack",
			"060108ff PXEClient 10.77.0.1 snponly.efi uuid -", "10.77.0.33:68"},
		{"HTTP boot", message{kind: discover, mac: mac(3), options: "5d 02 0010 " + classHTTP64}, "offer", "- HTTPClient 10.77.0.1 http://10.77.0.1/ssi.efi - -", "255.255.255.255:68"},
		{"no firmware", message{kind: discover, mac: mac(3)}, "silence", "", ""},
		{"unknown machine", message{kind: discover, mac: mac(77), options: optionsBIOS}, "silence", "", ""},
		{"request to the other server", message{kind: request, mac: mac(3), options: optionsBIOS, wanted: "10.77.0.33", server: "10.77.0.9"}, "silence", "", ""},
		{"release", message{kind: release, mac: mac(3), client: "10.77.0.33"}, "silence", "", ""},
	} {
		r := newRig(t, cfg)
		reply := r.want(c.want, c.m)
		if len(r.last.Changes) != 0 || r.saw(OtherServer) {
			t.Errorf("%s: decision %+v", c.name, r.last)
		}
		if reply == nil {
			continue
		}
		if got := boots(reply.Message); got != c.boot || reply.To.String() != c.to || reply.Message.Options.Has(dhcpv4.OptionIPAddressLeaseTime) {
			t.Errorf("%s: it boots %s by %v, want %s by %s", c.name, got, reply.To, c.boot, c.to)
		}
	}
}

// Port 4011 answers beside an own pool, too, and gives no address there.
func TestPort4011(t *testing.T) {
	r := newRig(t, testConfig(nodes()))
	reply := r.want("ack", message{kind: request, mac: mac(3), options: optionsEFI64, port: 4011, client: "10.77.0.33", from: "10.77.0.33:4011"})
	if reply.To.String() != "10.77.0.33:4011" || len(r.last.Changes) != 0 {
		t.Errorf("it goes to %v, changes %v", reply.To, r.last.Changes)
	}
	r.want("silence", message{kind: discover, mac: mac(3), options: optionsEFI64, port: 4011})
}

// A reply is no longer than the machine takes; what it boots is never left out.
func TestFit(t *testing.T) {
	cfg := testConfig(nodes())
	cfg.Subnets[0].Domain = strings.Repeat("d", maxDomain)
	cfg.Loaders.IPXE = "http://10.77.0.1/" + strings.Repeat("x", 200)
	r := newRig(t, cfg)
	options := strings.Replace(optionsIPXE, "39 02 05c0", "", 1) // 576 bytes
	m := r.send(message{kind: discover, mac: mac(3), options: options}).Message
	if n := len(m.ToBytes()); n > minMessage-ipUDP {
		t.Errorf("%d bytes, want at most %d", n, minMessage-ipUDP)
	}
	if len(m.Options[67]) != 17+200 || m.Options.Has(dhcpv4.OptionDomainName) {
		t.Error("it left out the wrong options")
	}
	m = r.send(message{kind: discover, mac: mac(3), options: optionsIPXE}).Message
	if !m.Options.Has(dhcpv4.OptionDomainName) {
		t.Error("it left out options though there is room")
	}
}
