package config

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits and words of the tables netboot and time.
const (
	// MaxPool is how many addresses a pool may have.
	MaxPool = 1 << 16
	// MinLease and MaxLease bound how long an address is lent.
	MinLease = 2 * time.Minute
	MaxLease = 30 * 24 * time.Hour
	// MaxKernelLine is how many bytes may be added to the command line of a
	// booted kernel: the kernel takes 2,048 in all (COMMAND_LINE_SIZE on x86).
	MaxKernelLine = 1024
	// MaxIncludes is how many files may be added to the initramfs.
	MaxIncludes = 256
	// MaxTimeServers is how many time servers may be named.
	MaxTimeServers = 8
	// HTTPPort is the TCP port where booting machines get kernel and initramfs.
	HTTPPort = 8067

	ModePool  = "pool"  // netboot is the DHCP server
	ModeProxy = "proxy" // another DHCP server gives addresses, netboot says what to boot
	ModeOff   = "off"   // no DHCP: another server is told by hand; loaders and kernels are served

	UnknownWait    = "wait"    // an unknown machine boots and waits for `ssi node approve`
	UnknownIgnore  = "ignore"  // it gets no answer
	UnknownApprove = "approve" // it becomes a node at once
)

// Netboot is the table [netboot]: how other machines are booted by the node
// that holds init.
type Netboot struct {
	Enable    bool     `toml:"enable"`
	Interface string   `toml:"interface"` // where machines are booted; "" is the first interconnect
	Mode      string   `toml:"mode"`      // pool, proxy or off
	Range     string   `toml:"range"`     // FIRST-LAST of the addresses to give; "" is the upper half of the network
	Lease     string   `toml:"lease"`     // how long an address is lent, as 1h30m
	Router    string   `toml:"router"`    // given to machines; "" gives none
	DNS       []string `toml:"dns"`       // given to machines
	Domain    string   `toml:"domain"`    // given to machines
	Kernel    string   `toml:"kernel"`    // version or path; "" is the running version
	Modules   string   `toml:"modules"`   // directory; "" is /lib/modules/VERSION
	Classes   []string `toml:"classes"`   // of hardware whose drivers the initramfs gets beside the usual ones
	Include   []string `toml:"include"`   // files and programs that the initramfs gets too
	Cmdline   string   `toml:"cmdline"`   // added to that of the kernel
	Unknown   string   `toml:"unknown"`   // wait, ignore or approve
	HTTPPort  int      `toml:"http_port" min:"1" max:"65535"`
}

// Time is the table [time].
type Time struct {
	Servers []string `toml:"servers"` // HOST or HOST:PORT of NTP servers that the init node asks
	Serve   bool     `toml:"serve"`   // the init node gives the time to the other nodes
}

func defaultNetboot() Netboot {
	return Netboot{Mode: ModePool, Lease: "1h", Unknown: UnknownWait, HTTPPort: HTTPPort}
}

// LeaseTime is how long an address is lent.
func (n Netboot) LeaseTime() time.Duration {
	d, _ := time.ParseDuration(n.Lease)
	return d
}

// Pool is the range of addresses to give, both ends included: the configured
// one, or the upper half of the network of the given address of the interface,
// at most 4,096 addresses, without its broadcast address and the given one
// where that is at an end. It must be in the network.
func (n Netboot) Pool(own netip.Prefix) (first, last netip.Addr, err error) {
	if !own.Addr().Is4() || own.Bits() > 29 && n.Range == "" {
		return first, last, fmt.Errorf("netboot.range: %s is no IPv4 network with room for machines", own.Masked())
	}
	if n.Range != "" {
		if first, last, err = parseRange(n.Range); err != nil {
			return first, last, fmt.Errorf("netboot.range: %w", err)
		}
		if !own.Contains(first) || !own.Contains(last) {
			return first, last, fmt.Errorf("netboot.range: %s is not within %s, the network of the interface", n.Range, own.Masked())
		}
		return first, last, nil
	}
	base, size := number(own.Masked().Addr()), uint32(1)<<(32-own.Bits())
	low, high := base+size/2, base+size-2
	high = min(high, low+4095)
	switch number(own.Addr()) {
	case low:
		low++
	case high:
		high--
	}
	return address(low), address(high), nil
}

func number(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// parseRange reads FIRST-LAST.
func parseRange(s string) (first, last netip.Addr, err error) {
	from, to, _ := strings.Cut(s, "-")
	first, err1 := netip.ParseAddr(strings.TrimSpace(from))
	last, err2 := netip.ParseAddr(strings.TrimSpace(to))
	switch {
	case err1 != nil || err2 != nil || !first.Is4() || !last.Is4():
		return first, last, fmt.Errorf("%q is no range, such as 10.0.0.100-10.0.0.200", s)
	case last.Less(first):
		return first, last, fmt.Errorf("%q ends before it begins", s)
	case number(last)-number(first) >= MaxPool:
		return first, last, fmt.Errorf("%q has more than %d addresses", s, MaxPool)
	}
	return first, last, nil
}

// check returns the first setting that is wrong.
func (n Netboot) check() (key string, err error) {
	checks := []struct {
		key string
		err error
	}{
		{"interface", optional(n.Interface, checkInterfaceName)},
		{"mode", checkWord(n.Mode, ModePool, ModeProxy, ModeOff)},
		{"range", n.checkRange()},
		{"lease", checkLease(n.Lease)},
		{"router", optional(n.Router, checkIP4)},
		{"dns", checkDNS(n.DNS)},
		{"domain", optional(n.Domain, checkDomain)},
		{"kernel", optional(n.Kernel, checkKernel)},
		{"modules", optional(n.Modules, checkPath)},
		{"classes", checkClasses(n.Classes)},
		{"include", checkInclude(n.Include)},
		{"cmdline", checkKernelLine(n.Cmdline)},
		{"unknown", checkWord(n.Unknown, UnknownWait, UnknownIgnore, UnknownApprove)},
	}
	for _, check := range checks {
		if check.err != nil {
			return check.key, check.err
		}
	}
	return "", nil
}

func (n Netboot) checkRange() error {
	if n.Range == "" {
		return nil
	}
	if n.Mode != ModePool {
		return fmt.Errorf("addresses are given with mode = %q only, and it is %q", ModePool, n.Mode)
	}
	first, last, err := parseRange(n.Range)
	if err != nil {
		return err
	}
	if router, err := netip.ParseAddr(n.Router); err == nil && first.Compare(router) <= 0 && router.Compare(last) <= 0 {
		return fmt.Errorf("%s holds the router %s: a machine would get its address", n.Range, router)
	}
	return nil
}

func checkWord(word string, allowed ...string) error {
	if !slices.Contains(allowed, word) {
		return fmt.Errorf("%q: it is one of %s", word, strings.Join(allowed, ", "))
	}
	return nil
}

func checkLease(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf(`%q is no time, such as "1h" or "90m"`, s)
	}
	if d < MinLease || d > MaxLease {
		return fmt.Errorf("%q: it is from %s to %s", s, MinLease, MaxLease)
	}
	return nil
}

func checkIP4(s string) error {
	if a, err := netip.ParseAddr(s); err != nil || !a.Is4() {
		return fmt.Errorf("%q is no IPv4 address", s)
	}
	return checkIP(s)
}

// CheckDomain refuses what is no domain name (RFC 1123).
func CheckDomain(s string) error { return checkDomain(s) }

func checkDomain(s string) error {
	if len(s) > 253 || !regexp.MustCompile(`^(?i)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`).MatchString(s) {
		return fmt.Errorf("%q is no domain name", s)
	}
	return nil
}

// checkKernel takes the version of a kernel, such as 6.12.9-cloud-amd64, or the
// path of one.
func checkKernel(s string) error {
	if filepath.IsAbs(s) {
		return checkPath(s)
	}
	if len(s) > 64 || !regexp.MustCompile(`^[0-9][A-Za-z0-9.+~_-]*$`).MatchString(s) {
		return fmt.Errorf("%q is neither the version of a kernel, such as 6.12.9-cloud-amd64, nor an absolute path", s)
	}
	return nil
}

func checkInclude(files []string) error {
	if len(files) > MaxIncludes {
		return fmt.Errorf("%d files; at most %d are allowed", len(files), MaxIncludes)
	}
	for _, f := range files {
		if err := checkPath(f); err != nil {
			return err
		}
	}
	return nil
}

func checkKernelLine(s string) error {
	if len(s) > MaxKernelLine {
		return fmt.Errorf("%d bytes; at most %d are allowed", len(s), MaxKernelLine)
	}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return fmt.Errorf("%q: a kernel takes plain characters in one line", s)
		}
	}
	return nil
}

func (t Time) check() (key string, err error) {
	if len(t.Servers) > MaxTimeServers {
		return "servers", fmt.Errorf("%d servers; at most %d are allowed", len(t.Servers), MaxTimeServers)
	}
	for i, s := range t.Servers {
		if slices.Contains(t.Servers[:i], s) {
			return "servers", fmt.Errorf("%q is there twice", s)
		}
		if err := checkServer(s); err != nil {
			return "servers", err
		}
	}
	return "", nil
}

// checkServer takes a host or HOST:PORT.
func checkServer(s string) error {
	if checkDomain(s) == nil {
		return nil
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("%q is no address of a server", s)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n == 0 || host == "" {
		return fmt.Errorf("%q is no host, such as ntp.example.org, 10.0.0.1 or 10.0.0.1:123", s)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	return checkDomain(host)
}
