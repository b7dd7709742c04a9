package machine

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ssi/internal/api"
	"ssi/internal/config"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// Kind is how a machine is booted.
type Kind string

// The kinds.
const (
	KindAuto     Kind = "auto"     // as its firmware asks
	KindIPXE     Kind = "ipxe"     // iPXE: HTTP
	KindPXELinux Kind = "pxelinux" // BIOS without iPXE
	KindUKI      Kind = "uki"      // UEFI without iPXE: one image
	KindHTTP     Kind = "http"     // UEFI HTTP boot
)

// Kinds lists them all.
func Kinds() []Kind { return []Kind{KindAuto, KindIPXE, KindPXELinux, KindUKI, KindHTTP} }

// Archs lists the architectures, by their Go names.
func Archs() []string { return []string{"amd64", "arm64"} }

// invalid is an error about what an operator wrote.
func invalid(format string, args ...any) error {
	return errno.New(errno.Invalid, "machine", 0, format, args...)
}

// set changes what c says. The number and the uniqueness of all else is Book's
// matter.
func (m *Machine) set(c api.MachineChange) error {
	if len(c.MACs) > 0 {
		macs, err := parseMACs(c.MACs)
		if err != nil {
			return err
		}
		m.MACs = macs
	}
	if c.Node != nil {
		if !c.Node.Valid() {
			return invalid("%d is no node number: they are 1 to %d", *c.Node, id.MaxNode)
		}
		m.Node = *c.Node
	}
	if c.Name != nil {
		if err := checkName(*c.Name); err != nil {
			return err
		}
		m.Name = *c.Name
	}
	if c.Class != nil {
		if err := checkClass(*c.Class); err != nil {
			return err
		}
		m.Class = *c.Class
	}
	if c.Arch != nil {
		if *c.Arch != "" && !slices.Contains(Archs(), *c.Arch) {
			return invalid("%.32q is no architecture of ssi: it is one of %s", *c.Arch, strings.Join(Archs(), ", "))
		}
		m.Arch = *c.Arch
	}
	if c.Address != nil {
		addr, err := parseAddress(*c.Address)
		if err != nil {
			return err
		}
		m.Address = addr
	}
	if c.Boot != nil {
		kind := Kind(*c.Boot)
		if kind == "" {
			kind = KindAuto
		}
		if !slices.Contains(Kinds(), kind) {
			return invalid("%.32q is no way to boot: it is one of %s", *c.Boot, joinKinds())
		}
		m.Boot = kind
	}
	if c.Args != nil {
		if err := checkArgs(*c.Args); err != nil {
			return err
		}
		m.Args = *c.Args
	}
	return nil
}

func joinKinds() string {
	var words []string
	for _, k := range Kinds() {
		words = append(words, string(k))
	}
	return strings.Join(words, ", ")
}

// changeOf is what a spec says, as a change.
func changeOf(s api.MachineSpec) api.MachineChange {
	c := api.MachineChange{MACs: s.MACs, Class: &s.Class, Arch: &s.Arch, Address: &s.Address, Boot: &s.Boot, Args: &s.Args}
	if s.Node != 0 {
		c.Node = &s.Node
	}
	if s.Name != "" {
		c.Name = &s.Name
	}
	return c
}

func parseMACs(texts []string) ([]MAC, error) {
	if len(texts) > MaxMACs {
		return nil, invalid("a machine has at most %d MAC addresses", MaxMACs)
	}
	var macs []MAC
	for _, text := range texts {
		m, err := ParseMAC(text)
		if err != nil {
			return nil, invalid("%w", err)
		}
		if slices.Contains(macs, m) {
			return nil, invalid("MAC address %s is given twice", m)
		}
		macs = append(macs, m)
	}
	return macs, nil
}

// checkName takes a label of a host name: RFC 1123, section 2.1. One that is a
// number could not be told from a node number.
func checkName(s string) error {
	ok := s != "" && len(s) <= maxName && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && strings.Trim(s, "0123456789") != ""
	if !ok {
		return invalid("%.64q is no name of a machine: up to %d small letters, digits and dashes, not digits only", s, maxName)
	}
	return nil
}

func checkClass(s string) error {
	if len(s) > maxWord || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return invalid("%.64q is no hardware class: up to %d small letters, digits, dots and dashes", s, maxWord)
	}
	return nil
}

func parseAddress(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || !addr.Is4() || !addr.IsGlobalUnicast() {
		return netip.Addr{}, invalid("%.64q is no IPv4 address of a machine", s)
	}
	return addr, nil
}

// checkArgs takes words that mean the same on every command line of a kernel and
// in the scripts of the loaders, whose special characters it refuses. The
// command line is public: anyone on the network reads it.
func checkArgs(s string) error {
	if len(s) > MaxArgs {
		return invalid("the kernel arguments are longer than %d bytes", MaxArgs)
	}
	for _, r := range s {
		if r < ' ' || r > '~' || strings.ContainsRune("\"'`\\$;|&<>#{}", r) {
			return invalid("the kernel arguments hold the character %q, which the loaders of some machines take for something else", r)
		}
	}
	if strings.Contains(s, config.TokenPrefix) {
		return invalid("the kernel arguments hold a token: a command line is no place for a secret; the machine gets its own when it boots")
	}
	return nil
}

// printable cuts what a machine says of itself to limit bytes of printable ASCII:
// it goes to terminals.
func printable(s string, limit int) string {
	b := make([]byte, 0, min(len(s), limit))
	for _, r := range s {
		if r < ' ' || r > '~' {
			r = '?'
		}
		if len(b) == limit {
			break
		}
		b = append(b, byte(r))
	}
	return string(b)
}

// defaultName is the name of a machine that has none of its own.
func defaultName(n id.Node) string { return fmt.Sprintf("node%d", n) }
