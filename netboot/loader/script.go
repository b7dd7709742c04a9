package loader

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Boot is what a script makes a machine boot.
type Boot struct {
	// Server is where the machine gets its files by HTTP; only with it a
	// PXELINUX configuration uses HTTP (lpxelinux.0), otherwise TFTP.
	Server netip.AddrPort
	// Kernel and Initramfs are names of the Tree.
	Kernel    string
	Initramfs string
	Cmdline   Cmdline
	// Script is the name of the iPXE script at the server. With it iPXE asks DHCP
	// again after each failure, and takes the script that is named then: the
	// server may have moved.
	Script string
	// BootIF adds the parameter BOOTIF=01-MAC of the interface that is booted
	// from, as the boot loader sees it (SYSAPPEND 2 of PXELINUX).
	BootIF bool
}

const (
	maxWait = 32     // seconds: the longest pause between two attempts
	stalled = 20_000 // milliseconds without a byte until a download has failed
)

// IPXE writes a script for iPXE. It loads kernel and initramfs by HTTP and says
// in the request which machine it is (?mac=); when the server does not answer
// it says so on the console and tries again after 1, 2, 4 … 32 s, for ever; or,
// with Script, goes to the one that answers instead. A download that stands still has
// failed: iPXE itself would wait for ever for a server whose power was cut.
func (b Boot) IPXE() ([]byte, error) {
	args, err := b.check()
	if err != nil {
		return nil, fmt.Errorf("iPXE script: %w", err)
	}
	if !b.Server.IsValid() {
		return nil, fmt.Errorf("iPXE script: there is no address of the HTTP server")
	}
	if b.BootIF {
		// netX is the interface that was opened last: the one that this script came by.
		args = strings.TrimSpace(args + " BOOTIF=01-${netX/mac:hexhyp}")
	}
	base := b.url()
	var s strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&s, format+"\n", a...) }
	line("#!ipxe")
	line("set wait:int32 1")
	line(":again")
	line("imgfree")
	line("echo ssi: loading kernel and initramfs from %s", b.Server)
	// EFI kernels look for the initramfs by this name; iPXE takes the name from
	// the option, the kernel's own one from imgargs.
	line("kernel --timeout %d --name vmlinuz %s%s?mac=${netX/mac} || goto failed", stalled, base, b.Kernel)
	line("initrd --timeout %d --name initrd.img %s%s?mac=${netX/mac} || goto failed", stalled, base, b.Initramfs)
	line("imgargs vmlinuz initrd=initrd.img %s || goto failed", args)
	line("boot || goto failed")
	line(":failed")
	line("echo ssi: %s did not deliver what this machine boots from. Is the init node up and this machine known to it?", b.Server)
	line("echo ssi: trying again in ${wait} seconds")
	line("sleep ${wait}")
	line("iseq ${wait} %d || inc wait ${wait}", maxWait)
	if b.Script != "" {
		line("dhcp || goto again") // on any interface: one without an answer is closed, and netX is none then
		line("isset ${filename} || goto again")
		line("iseq ${filename} %s%s && goto again ||", base, b.Script)
		line("echo ssi: asking ${filename} instead")
		line("chain --timeout %d --replace ${filename} || goto again", stalled)
	}
	line("goto again")
	return []byte(s.String()), nil
}

// PXELINUX writes the configuration "pxelinux.cfg/default".
func (b Boot) PXELINUX() ([]byte, error) {
	args, err := b.check()
	if err != nil {
		return nil, fmt.Errorf("PXELINUX configuration: %w", err)
	}
	base := ""
	if b.Server.IsValid() {
		base = b.url()
	}
	var s strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&s, format+"\n", a...) }
	line("DEFAULT ssi")
	line("PROMPT 0")
	line("TIMEOUT 100") // after a failure the default again, in units of 0.1 s
	line("SAY ssi: loading kernel and initramfs; if this fails, is the init node up and this machine known to it?")
	line("LABEL ssi")
	line("  KERNEL %s%s", base, b.Kernel)
	line("  INITRD %s%s", base, b.Initramfs)
	if args != "" {
		line("  APPEND %s", args)
	}
	if b.BootIF {
		line("  SYSAPPEND 2")
	}
	return []byte(s.String()), nil
}

func (b Boot) url() string { return "http://" + b.Server.String() + "/" }

// check returns the rendered command line.
func (b Boot) check() (string, error) {
	names := []string{b.Kernel, b.Initramfs}
	if b.Script != "" {
		names = append(names, b.Script)
	}
	for _, name := range names {
		// What needs escapes in a URL or in a script is not worth having.
		if !validName(name) || url.PathEscape(strings.ReplaceAll(name, "/", "")) != strings.ReplaceAll(name, "/", "") || strings.ContainsAny(name, "$&|,") {
			return "", fmt.Errorf("%s is no name for kernel, initramfs or script: use letters, digits and . _ - /", strconv.Quote(name))
		}
	}
	if b.Server.IsValid() && (b.Server.Port() == 0 || b.Server.Addr().IsUnspecified() || b.Server.Addr().Zone() != "") {
		return "", fmt.Errorf("%s is no address that a machine can reach", b.Server)
	}
	return b.Cmdline.Render()
}
