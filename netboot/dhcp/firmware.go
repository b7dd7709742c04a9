package dhcp

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Firmware is the program that asks: it decides what can be booted.
type Firmware int

// The firmware.
const (
	None  Firmware = iota // an operating system: it boots nothing
	IPXE                  // as ROM, or loaded by other firmware
	BIOS                  // PXE of a BIOS
	EFI32                 // PXE of UEFI
	EFI64
	EFIARM64
	HTTP32 // HTTP boot of UEFI
	HTTP64
	HTTPARM64
	Other // boots from the network, with a processor that has no loader here
)

// String is the name of a firmware.
func (f Firmware) String() string {
	names := [...]string{"no firmware", "iPXE", "BIOS", "UEFI ia32", "UEFI x64", "UEFI arm64",
		"HTTP boot ia32", "HTTP boot x64", "HTTP boot arm64", "unknown firmware"}
	if f < 0 || int(f) >= len(names) {
		return "unknown firmware"
	}
	return names[f]
}

// http reports whether the firmware wants URLs.
func (f Firmware) http() bool { return f == HTTP32 || f == HTTP64 || f == HTTPARM64 }

// The options of network boot that have a format of their own.
const (
	optVendorSpecific = dhcpv4.GenericOptionCode(43)
	optClass          = dhcpv4.GenericOptionCode(60)
	optClientID       = dhcpv4.GenericOptionCode(61)
	optTFTPServer     = dhcpv4.GenericOptionCode(66)
	optBootfile       = dhcpv4.GenericOptionCode(67)
	optUserClass      = dhcpv4.GenericOptionCode(77)
	optRelayAgent     = dhcpv4.GenericOptionCode(82)
	optArch           = dhcpv4.GenericOptionCode(93)
	optUUID           = dhcpv4.GenericOptionCode(97)
	optIPXE           = dhcpv4.GenericOptionCode(175) // https://ipxe.org/howto/dhcpd: its options, encapsulated
)

const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
)

// pxeDirect is option 43 with PXE_DISCOVERY_CONTROL (6) = 8, "boot the file that
// is named": without it UEFI looks for a boot server and ends with PXE-E16. PXE
// specification 2.1, section 2.2.3.
func pxeDirect() []byte { return []byte{6, 1, 8, 255} }

// ipxeNoProxy is option 175 with no-pxedhcp (0xb0) = 1: iPXE does not wait 3 s for
// a proxy.
func ipxeNoProxy() []byte { return []byte{0xb0, 1, 1} }

// firmwareOf tells the firmware of a request. The numbers are those of the IANA
// registry "Processor Architecture Types"; UEFI on x64 says 7 (EFI byte code) or 9.
func firmwareOf(m *dhcpv4.DHCPv4) Firmware {
	if bytes.Contains(m.Options.Get(optUserClass), []byte("iPXE")) || m.Options.Has(optIPXE) {
		return IPXE
	}
	class := string(m.Options.Get(optClass))
	arch := archOf(m)
	switch {
	case strings.HasPrefix(class, classHTTP):
		switch arch {
		case 15:
			return HTTP32
		case 16:
			return HTTP64
		case 19:
			return HTTPARM64
		}
		return Other
	case strings.HasPrefix(class, classPXE):
		switch arch {
		case 0:
			return BIOS
		case 6:
			return EFI32
		case 7, 9:
			return EFI64
		case 11:
			return EFIARM64
		}
		return Other
	}
	return None
}

// archOf is the first processor of option 93.
func archOf(m *dhcpv4.DHCPv4) uint16 {
	if b := m.Options.Get(optArch); len(b) >= 2 {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// uuidOf is the UUID of option 97, which begins with its type, 0.
func uuidOf(m *dhcpv4.DHCPv4) (u [16]byte) {
	if b := m.Options.Get(optUUID); len(b) == 1+len(u) && b[0] == 0 {
		copy(u[:], b[1:])
	}
	return u
}

// setBoot puts what is to be booted into a reply. proxied says that another server
// gives the address: then the class must be there for iPXE too, which takes an
// offer without address only from a PXE server.
func setBoot(reply *dhcpv4.DHCPv4, f Firmware, file string, proxied bool) {
	if f == None || file == "" {
		return
	}
	switch {
	case f == IPXE:
		reply.Options[optIPXE.Code()] = ipxeNoProxy()
		if proxied {
			reply.Options[optClass.Code()] = []byte(classPXE)
		}
	case f.http():
		reply.Options[optClass.Code()] = []byte(classHTTP)
	default:
		reply.Options[optClass.Code()] = []byte(classPXE)
		reply.Options[optVendorSpecific.Code()] = pxeDirect()
	}
	reply.Options[optBootfile.Code()] = []byte(file)
	reply.Options[optTFTPServer.Code()] = []byte(reply.ServerIPAddr.String())
	reply.ServerHostName = reply.ServerIPAddr.String()
	if len(file) <= maxFile {
		reply.BootFileName = file
	}
}
