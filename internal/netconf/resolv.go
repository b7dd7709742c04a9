package netconf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ssi/internal/config"
)

// resolvMark begins a resolv.conf that ssi has written and may write again.
const resolvMark = "# Written by ssi: name servers are set in /etc/ssi/ssi.toml or come from DHCP."

// resolvText is a resolv.conf(5); "" when there is nothing to say.
func resolvText(servers []netip.Addr, domains []string) string {
	if len(servers) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(resolvMark + "\n")
	for _, s := range servers[:min(len(servers), config.MaxDNS)] {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(domains) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(domains[:min(len(domains), 6)], " "))
	}
	return b.String()
}

// resolvers are the name servers and domains of all interfaces, in the order of
// the configuration.
func resolvers(interfaces []config.Interface, bindings []Binding, leases map[string]Lease) (servers []netip.Addr, domains []string) {
	add := func(a netip.Addr) {
		if a.IsValid() && !slices.Contains(servers, a) {
			servers = append(servers, a)
		}
	}
	for _, n := range interfaces {
		for _, s := range n.DNS {
			a, _ := netip.ParseAddr(s)
			add(a)
		}
		for _, b := range bindings {
			lease := leases[b.Link]
			if b.Label != n.Label() || !n.DHCP() || !lease.Valid() {
				continue
			}
			if len(n.DNS) == 0 {
				for _, a := range lease.DNS {
					add(a)
				}
			}
			if lease.Domain != "" && !slices.Contains(domains, lease.Domain) {
				domains = append(domains, lease.Domain)
			}
		}
	}
	return servers, domains
}

// writeResolv writes a resolv.conf unless it belongs to another program.
func writeResolv(path, text string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("name servers: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("name servers: %s is no plain file: another program keeps it; remove it if ssi shall", path)
	case info.Size() > 0:
		old, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("name servers: %w", err)
		}
		if string(old) == text {
			return nil
		}
		if !strings.HasPrefix(string(old), resolvMark) {
			return fmt.Errorf("name servers: %s was not written by ssi and stays; remove it if ssi shall write it", path)
		}
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".resolv.conf-")
	if err != nil {
		return fmt.Errorf("name servers: %w", err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.WriteString(text)
	if err = errors.Join(err, temp.Chmod(0o644), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("name servers: write %s: %w", path, err)
	}
	return nil
}
