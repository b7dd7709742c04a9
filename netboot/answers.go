package netboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"ssi/internal/config"
	"ssi/netboot/dhcp"
	"ssi/netboot/httpboot"
	"ssi/netboot/loader"
	"ssi/netboot/machine"
	"ssi/netboot/tftp"
)

// The names that are made for each machine.
const (
	scriptName = machine.Script
	pxelinux   = "pxelinux.cfg/" // PXELINUX asks for several names below it
)

// term is one time of serving: what to answer, while this node holds init.
type term struct {
	*Service
	settings config.Netboot
	server   netip.AddrPort // of HTTP
	boot     loader.Boot    // without what is particular to a machine
	unify    func() error   // makes the unified kernel image; nil if it is there
	release  string         // of the kernel
	makes    bool           // this node makes the boot files, and those of classes
	// entries are the boot files; after fill they are those of the goroutine that
	// makes more of them.
	entries map[string]loader.Entry
	changed chan error // a file that is not the one that was checked; it ends the term
}

// loaders says what the firmwares are sent now.
func (t *term) loaders() dhcp.Loaders {
	tree := t.shelf.Tree()
	return loadersOf(t.server, func(name string) bool { _, ok := tree.Lookup(name); return ok })
}

// loadersOf says what the firmwares are sent, of what is in the tree.
func loadersOf(server netip.AddrPort, has func(name string) bool) dhcp.Loaders {
	first := func(prefix string, names ...string) string {
		for _, name := range names {
			if has(name) {
				return prefix + name
			}
		}
		return ""
	}
	url := "http://" + server.String() + "/"
	return dhcp.Loaders{
		IPXE:     url + scriptName,
		BIOS:     first("", loader.Undionly, loader.LPxelinux, loader.Pxelinux),
		EFI64:    first("", loader.SNPOnly, loader.IPXE, ukiName),
		EFIARM64: first("", loader.SNPOnlyARM),
		HTTP64:   first(url, ukiName, loader.SNPOnly, loader.IPXE),
	}
}

// Lookup is that of dhcp.Machines.
func (t *term) Lookup(q dhcp.Query) dhcp.Machine {
	arch := "amd64"
	if q.Firmware == dhcp.EFIARM64 || q.Firmware == dhcp.HTTPARM64 {
		arch = "arm64"
	}
	answer := t.admission.Ask(machine.MAC(q.MAC), arch)
	m := dhcp.Machine{State: dhcp.Unknown}
	switch {
	case answer.Boot:
		m.State, m.Bootfile = dhcp.Boot, t.bootfile(q.Firmware, machine.KindAuto)
	case answer.Machine != nil && answer.Machine.Standing == machine.Denied, t.settings.Unknown == config.UnknownIgnore:
		return m
	default: // it is booted, so that its console can say that it waits
		m.State = dhcp.Pending
		m.Bootfile = t.bootfile(q.Firmware, machine.KindAuto)
	}
	if d := answer.Machine; d != nil {
		m.Addr, m.Hostname = d.Address, d.Name
		if d.Boot != "" {
			m.Bootfile = t.bootfile(q.Firmware, d.Boot)
		}
	}
	return m
}

// bootfile is what a firmware is sent, if the operator chose a kind of boot for
// the machine; a firmware that cannot boot so gets what it can.
func (t *term) bootfile(f dhcp.Firmware, kind machine.Kind) string {
	has := func(name string) bool { _, ok := t.shelf.Tree().Lookup(name); return ok }
	loaders := t.loaders()
	switch {
	case f == dhcp.IPXE:
		return loaders.IPXE
	case f == dhcp.BIOS && kind == machine.KindPXELinux && has(loader.LPxelinux):
		return loader.LPxelinux
	case f == dhcp.BIOS && kind == machine.KindPXELinux && has(loader.Pxelinux):
		return loader.Pxelinux
	case f == dhcp.BIOS:
		return loaders.BIOS
	case f == dhcp.EFI64 && kind == machine.KindUKI && has(ukiName):
		return ukiName
	case f == dhcp.EFI64:
		return loaders.EFI64
	case f == dhcp.EFIARM64:
		return loaders.EFIARM64
	case f == dhcp.HTTP64:
		return loaders.HTTP64
	}
	return ""
}

// Owner is that of dhcp.Machines.
func (t *term) Owner(addr netip.Addr) (dhcp.MAC, bool) {
	book, err := t.table.Book()
	if err != nil {
		return dhcp.MAC{}, false
	}
	for _, m := range book.Machines() {
		if m.Address == addr {
			return dhcp.MAC(m.ID()), true
		}
	}
	return dhcp.MAC{}, false
}

// of is the boot of one machine: with what the operator added to its kernel's
// command line.
func (t *term) of(ip netip.Addr) loader.Boot {
	boot := t.boot
	mac, err := t.addresses.owner(ip)
	if err != nil {
		return boot
	}
	boot.Cmdline = append(loader.Cmdline(nil), boot.Cmdline...)
	if answer := t.admission.Ask(mac, ""); answer.Boot && answer.Machine != nil {
		if answer.Machine.Name != "" {
			boot.Cmdline = append(boot.Cmdline, loader.Param{Key: "ssi.name", Value: answer.Machine.Name})
		}
		boot.Cmdline = append(boot.Cmdline, params(answer.Machine.Args)...)
		boot.Initramfs = t.initramfs(answer.Machine.Class)
	}
	return boot
}

// cmdline is what every machine gets; what the operator says stands behind it and
// counts more. The kernel's messages below errors are for its log: a serial line of
// 9600 baud, the default, takes half a minute for them. And it does not test its
// ciphers against known answers (crypto/testmgr.c; with fips=1 it does all the
// same): that takes an emulated processor a second.
func (t *term) cmdline() loader.Cmdline {
	return loader.Cmdline{{Key: "rdinit", Value: "/sbin/ssi"}, {Key: "panic", Value: "-1"}, {Key: "loglevel", Value: "4"},
		{Key: "cryptomgr.notests"}, {Key: "ssi.cluster", Value: "http://" + t.server.String()}}
}

// params takes words of a kernel command line apart.
func params(text string) (list loader.Cmdline) {
	for _, word := range config.Words(text) {
		key, value, _ := strings.Cut(word, "=")
		list = append(list, loader.Param{Key: key, Value: value})
	}
	return list
}

// page answers what is not a file of the tree.
func (t *term) page(ctx context.Context, r httpboot.Request) (httpboot.Response, bool) {
	client := r.Client.Addr().Unmap()
	post := func(f func(context.Context, netip.Addr, []byte) (int, []byte)) (httpboot.Response, bool) {
		if r.Method != http.MethodPost {
			return httpboot.Response{Status: http.StatusMethodNotAllowed}, true
		}
		status, body := f(ctx, client, r.Body)
		return httpboot.Response{Status: status, Type: "application/json", Body: body}, true
	}
	switch r.Path {
	case scriptName:
		script, err := t.of(client).IPXE()
		if err != nil {
			t.log.Error("boot script", "op", "netboot", "client", client, "err", err)
			return httpboot.Response{Status: http.StatusInternalServerError}, true
		}
		return httpboot.Response{Body: script}, true
	case strings.TrimPrefix(machine.PathAdmit, "/"):
		return post(t.admission.Admit)
	case strings.TrimPrefix(machine.PathProgress, "/"):
		return post(t.admission.Progress)
	}
	return httpboot.Response{}, false
}

// tftpFile answers what PXELINUX asks for.
func (t *term) tftpFile(client netip.Addr, name string) ([]byte, bool) {
	if !strings.HasPrefix(name, pxelinux) || name != pxelinux+"default" {
		return nil, false
	}
	text, err := t.of(client.Unmap()).PXELINUX()
	if err != nil {
		t.log.Error("boot configuration", "op", "netboot", "client", client, "err", err)
		return nil, false
	}
	return bytes.Clone(text), true
}

// begun notes that a machine was sent what it boots.
func (t *term) begun(ip netip.Addr, name string) {
	mac, err := t.addresses.owner(ip)
	if err != nil {
		t.log.Warn("a machine that nobody knows was sent a file", "op", "netboot", "client", ip, "file", name, "err", err)
		return
	}
	t.admission.Booted(mac, ip.Unmap())
}

// failed ends the term if a file is not the one that was checked: a package of boot
// loaders was upgraded, or somebody wrote to it.
func (t *term) failed(err error) {
	if errors.Is(err, loader.ErrChanged) {
		select {
		case t.changed <- err:
		default: // it is known
		}
	}
}

func (t *term) tftpDone(r tftp.Transfer) {
	level, attrs := t.log.Info, []any{"op", "tftp", "client", r.Client, "file", fmt.Sprintf("%.80q", r.Name), "bytes", r.Bytes, "after", r.Duration}
	switch {
	case r.Probe:
		return
	case r.Err != nil:
		level, attrs = t.log.Warn, append(attrs, "err", r.Err)
		t.failed(r.Err)
	case r.Bytes == r.Size:
		t.begun(r.Client.Addr(), r.Name)
	}
	level("sent", attrs...)
}

func (t *term) httpDone(r httpboot.Access) {
	attrs := []any{"op", "http", "client", r.Client, "path", fmt.Sprintf("%.80q", r.Path), "status", r.Status, "bytes", r.Bytes, "after", r.Duration}
	if r.Err != nil {
		t.log.Warn("sent", append(attrs, "err", r.Err)...)
		t.failed(r.Err)
		return
	}
	name := strings.TrimPrefix(r.Path, "/")
	if _, ok := t.shelf.Tree().Lookup(name); ok && r.Bytes > 0 && r.Method == http.MethodGet {
		t.begun(r.Client.Addr(), name)
		t.log.Info("sent", attrs...)
		return
	}
	t.log.Debug("sent", attrs...)
}
