package boot

import "strings"

// MaxCommandLine is how many bytes of the kernel command line are read; the
// kernel has at most 2048 (COMMAND_LINE_SIZE of x86 and arm64).
const MaxCommandLine = 64 << 10

// Param is one parameter of the kernel command line.
type Param struct {
	Name  string // dashes are underscores, as the kernel compares them
	Value string // without quotes
	Set   bool   // it had a "="
}

// CommandLine is the kernel command line, in its order.
type CommandLine []Param

// ParseCommandLine takes a kernel command line apart as next_arg in lib/cmdline.c
// does: blanks separate, double quotes hold together and vanish when they
// surround a parameter or a value. What follows "--" is for init and no
// parameter. It never fails.
func ParseCommandLine(text string) CommandLine {
	var list CommandLine
	rest := trimBlanks(text)
	for rest != "" {
		var p Param
		p, rest = nextArg(rest)
		if p.Name == "--" && !p.Set {
			break
		}
		p.Name = strings.ReplaceAll(p.Name, "-", "_")
		list = append(list, p)
	}
	return list
}

// blank is the kernel's isspace (lib/ctype.c), and the NUL that ends its strings.
func blank(c byte) bool {
	return c == ' ' || c >= '\t' && c <= '\r' || c == 0xa0 || c == 0
}

func trimBlanks(s string) string {
	for s != "" && blank(s[0]) {
		s = s[1:]
	}
	return s
}

// nextArg takes the first parameter from args, which begins with no blank.
func nextArg(args string) (p Param, rest string) {
	quoted := args[0] == '"'
	if quoted {
		args = args[1:]
	}
	inQuote, equals, i := quoted, 0, 0
	for ; i < len(args); i++ {
		c := args[i]
		if blank(c) && !inQuote {
			break
		}
		if c == '=' && equals == 0 {
			equals = i
		}
		if c == '"' {
			inQuote = !inQuote
		}
	}
	word, rest := args[:i], trimBlanks(args[i:])
	if quoted {
		word = strings.TrimSuffix(word, `"`)
	}
	if equals == 0 || equals >= len(word) {
		return Param{Name: word}, rest
	}
	value := word[equals+1:]
	if strings.HasPrefix(value, `"`) {
		value = strings.TrimSuffix(value[1:], `"`)
	}
	return Param{Name: word[:equals], Value: value, Set: true}, rest
}

// Get is the value of the last parameter of this name; ok tells whether there is
// one.
func (c CommandLine) Get(name string) (value string, ok bool) {
	name = strings.ReplaceAll(name, "-", "_")
	for _, p := range c {
		if p.Name == name {
			value, ok = p.Value, true
		}
	}
	return value, ok
}

// Has reports whether a parameter of this name is there.
func (c CommandLine) Has(name string) bool {
	_, ok := c.Get(name)
	return ok
}

// SSI is the parameters whose names begin with "ssi.", without that; of those
// given twice the last.
func (c CommandLine) SSI() map[string]string {
	m := map[string]string{}
	for _, p := range c {
		if key, ok := strings.CutPrefix(p.Name, "ssi."); ok && key != "" {
			m[key] = p.Value
		}
	}
	return m
}

// ReadOnly reports whether root is to be mounted read-only: the last of ro and rw
// decides, and without them it is, as for the kernel.
func (c CommandLine) ReadOnly() bool {
	ro := true
	for _, p := range c {
		switch {
		case p.Name == "ro" && !p.Set:
			ro = true
		case p.Name == "rw" && !p.Set:
			ro = false
		}
	}
	return ro
}
