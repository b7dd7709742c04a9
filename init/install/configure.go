package install

import (
	"fmt"
	"net/netip"
	"strings"

	"ssi/internal/config"
)

const networkHead = `
# The network of this machine as it was when ssi was installed.
`

// configure is the configuration for a system without one: the example and, for
// this machine, the [[interface]] tables of its network. Notes tell about the
// network, which nobody else configures once ssi is init. c is the configuration
// that there will be.
func configure(d *disk, o Options) (text []byte, c config.Config, notes []string, err error) {
	text = o.Config
	there, err := d.look(configFile)
	if err != nil {
		return nil, c, nil, err
	}
	exists := there.kind == kindFile
	whole := string(text)
	if exists {
		whole = string(there.content)
	}
	if c, err = config.Parse(configFile, whole); err != nil {
		return nil, c, nil, fmt.Errorf("nothing was changed: %w", err)
	}
	if len(c.Interfaces) > 0 {
		return text, c, nil, nil
	}
	const without = configFile + " has no [[interface]], and only ssi configures the network once it is init: "
	if o.Network == nil {
		return text, c, []string{without + "write one before you boot with ssi"}, nil
	}
	n, err := o.Network()
	if err != nil {
		return text, c, []string{without + fmt.Sprintf("write one before you boot with ssi; how it is now could not be found out: %v", err)}, nil
	}
	tables, notes := n.tables(addrOf(o.Addr))
	lines := tomlOf(tables)
	if len(tables) == 0 {
		return text, c, append(notes, without+"this machine has no address now that could be kept; write one before you boot with ssi"), nil
	}
	whole = strings.TrimRight(whole, "\n") + "\n" + networkHead + lines
	kept, err := config.Parse(configFile, whole)
	if err != nil {
		return text, c, append(notes, without+fmt.Sprintf("write one before you boot with ssi; what it has now cannot be kept: %v", err)), nil
	}
	if exists {
		return text, c, append(notes, without+"add these lines, which keep it as it is now:"+indent(lines)), nil
	}
	return []byte(whole), kept, append(notes, configFile+" keeps the network as it is now; look whether that is what you want:"+indent(lines)), nil
}

// indent sets lines off from the text before them.
func indent(lines string) string {
	return strings.ReplaceAll("\n"+strings.Trim(lines, "\n"), "\n", "\n    ")
}

// addrOf is the address in HOST or HOST:PORT; invalid if it is a name, or nothing.
func addrOf(addr string) netip.Addr {
	if ip, err := netip.ParseAddr(strings.Trim(addr, "[]")); err == nil {
		return ip
	}
	p, _ := netip.ParseAddrPort(addr) // invalid otherwise
	return p.Addr()
}
