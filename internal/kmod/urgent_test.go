package kmod

import (
	"strings"
	"testing"
)

func TestUrgent(t *testing.T) {
	for alias, want := range map[string]bool{
		"virtio:d00000001v00001AF4":                             true,
		"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00": true,
		"pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80": true,
		"pci:v00008086d00007000sv00001AF4sd00001100bc06sc01i00": true,
		"pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00": true, // a watchdog
		"pci:v00008086d000046A6sv0000103Csd00008A26bc03sc00i00": false,
		"pci:v00008086d000051C8sv0000103Csd00008A26bc04sc03i80": false,
		"pci:v00008086d0000643Esv00000000sd00000000bc12sc00i00": false,
		"cpu:type:x86,ven0002fam000Fmod006B:feature:,0000,0001": false,
		"dmi:bvnSeaBIOS:bvr1.16.2:bd04/01/2014:br0.0:svnQEMU:":  false,
		"acpi:LNXPWRBN:": true,
		"usb:v046DpC31Cd6402dc00dsc00dp00ic03isc01ip01in00": true,
		"usb:v046Dp0825d0012dcEFdsc02dp01ic0Eisc01ip00in00": false,
		"usb:v0BDAp8153d3000dc00dsc00dp00ic02isc06ip00in00": true,
		"usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00": true,
		"scsi:t-0x00": true,
		"of:NethernetT(null)Cbrcm,bcm2711-genet-v5": true,
		"": true, "pci:": true, "pci:bc": true, "pci:bc0": true, "usb:ic": true,
	} {
		if got := Urgent(Device{Modalias: alias}); got != want {
			t.Errorf("%q: %v", alias, got)
		}
		if Urgent(Device{Modalias: alias, Bound: true}) {
			t.Errorf("%q: has a driver", alias)
		}
		disk := strings.Contains(alias, "bc01") || strings.Contains(alias, "ic08") || strings.HasPrefix(alias, "scsi:") || strings.Contains(alias, "virtio:d00000002")
		if got := UrgentWithoutDisks(Device{Modalias: alias}); got != (want && !disk) {
			t.Errorf("%q without disks: %v", alias, got)
		}
	}
}
