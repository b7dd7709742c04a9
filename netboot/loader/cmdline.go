package loader

import (
	"errors"
	"fmt"
	"strings"
)

// MaxCmdline is how many bytes a kernel command line has: COMMAND_LINE_SIZE is
// 2048 with the NUL on x86 and arm64 (arch/*/include/*/setup.h).
const MaxCmdline = 2047

// Param is a parameter of the kernel command line. Without a value it is the key
// alone, as "quiet".
type Param struct {
	Key   string
	Value string
}

// Cmdline is a kernel command line, in its order: the last of two equal keys
// counts for most parameters, all of them for console=.
type Cmdline []Param

// Render writes the command line as the kernel takes it apart (next_arg in
// lib/cmdline.c): a value with spaces stands in double quotes. What a kernel or
// one of the boot loaders would read otherwise is an error that names the
// parameter: the kernel knows no escape for a quote, iPXE expands "${" and
// takes "||" and "&&" as operators and joins runs of spaces, and a line end
// would begin a new command.
func (c Cmdline) Render() (string, error) {
	var b strings.Builder
	for i, p := range c {
		if err := p.check(); err != nil {
			return "", fmt.Errorf("kernel command line: parameter %d %.80q: %w", i+1, p.Key, err)
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(p.Key)
		switch {
		case p.Value == "":
		case strings.Contains(p.Value, " "):
			b.WriteString(`="` + p.Value + `"`)
		default:
			b.WriteString("=" + p.Value)
		}
		if b.Len() > MaxCmdline {
			return "", fmt.Errorf("kernel command line: it is longer than %d bytes, the kernel would cut it off", MaxCmdline)
		}
	}
	return b.String(), nil
}

func (p Param) check() error {
	if p.Key == "" {
		return errors.New("the key is empty")
	}
	for _, r := range p.Key {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r) {
			return fmt.Errorf("the key has a %q; letters, digits and . _ - are allowed", r)
		}
	}
	if strings.Trim(p.Key, "-") == "" {
		return errors.New(`the kernel stops at "--"`)
	}
	for _, r := range p.Value {
		if r < ' ' || r > '~' || r == '"' {
			return fmt.Errorf("the value has a %q; printable ASCII without double quotes is allowed", r)
		}
	}
	for _, s := range []string{"${", "||", "&&", "  "} {
		if strings.Contains(p.Value, s) {
			return fmt.Errorf("the value has a %q, which iPXE would change", s)
		}
	}
	if strings.HasPrefix(p.Value, " ") || strings.HasSuffix(p.Value, " ") {
		return errors.New("the value begins or ends with a space")
	}
	return nil
}
