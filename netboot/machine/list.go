package machine

import (
	"fmt"
	"strings"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// atLine says where in a list something is wrong; the kind of the error stays.
func atLine(line int, err error) error {
	return errno.New(errno.KindOf(err), "machine", 0, "line %d: %s", line, plain(err))
}

// plain is the text of an error without what it was about.
func plain(err error) string {
	if e, ok := err.(*errno.Error); ok { //nolint:errorlint // what wraps it has more to say
		return e.Text
	}
	return err.Error()
}

// ParseList reads a list of machines, one a line:
//
//	MAC[,MAC…] [node=N] [name=NAME] [class=CLASS] [arch=ARCH] [address=IPV4] [boot=KIND] [args=…]
//
// args takes the rest of its line; # begins a comment. from is where the text is
// from, for messages. The first bad line is the error, and nothing else.
func ParseList(from, text string) ([]api.MachineSpec, error) {
	if len(text) > maxListing {
		return nil, invalid("%s: longer than %d bytes", from, maxListing)
	}
	var specs []api.MachineSpec
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		spec, err := parseLine(line)
		if err == nil {
			err = new(Machine).set(changeOf(spec))
		}
		if err != nil {
			return nil, invalid("%s: line %d: %s", from, n, plain(err))
		}
		if len(specs) == MaxList {
			return nil, invalid("%s: line %d: more than %d machines; add the rest in a second list", from, n, MaxList)
		}
		spec.Line = n
		specs = append(specs, spec)
	}
	if len(specs) == 0 {
		return nil, invalid("%s: there is no machine in it; a line is: MAC [node=N] [name=NAME] …", from)
	}
	return specs, nil
}

func parseLine(line string) (api.MachineSpec, error) {
	first, rest, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
	spec := api.MachineSpec{MACs: strings.Split(first, ",")}
	seen := map[string]bool{}
	for rest = strings.TrimSpace(rest); rest != ""; {
		word, after, _ := strings.Cut(rest, " ")
		key, value, ok := strings.Cut(word, "=")
		if !ok || value == "" && key != "args" {
			return spec, fmt.Errorf("%.64q is no KEY=VALUE", word)
		}
		if seen[key] {
			return spec, fmt.Errorf("%s= is given twice", key)
		}
		seen[key] = true
		switch key {
		case "node":
			n, err := id.ParseNode(value)
			if err != nil {
				return spec, err
			}
			spec.Node = n
		case "name":
			spec.Name = value
		case "class":
			spec.Class = value
		case "arch":
			spec.Arch = value
		case "address":
			spec.Address = value
		case "boot":
			spec.Boot = value
		case "args":
			spec.Args, after = strings.TrimPrefix(rest, "args="), ""
		default:
			return spec, fmt.Errorf("there is no %.32q: use node=, name=, class=, arch=, address=, boot= or args=", key)
		}
		rest = strings.TrimSpace(after)
	}
	return spec, nil
}
