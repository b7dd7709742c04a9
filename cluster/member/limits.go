package member

import (
	"net"
	"unicode"

	"ssi/internal/errno"
)

// Limits of what a node may say about itself, in bytes unless said otherwise.
const (
	MaxHistory = 1024 // transitions kept
	MaxName    = 64
	MaxAddr    = 256
	MaxOthers  = 3  // addresses beside the first
	MaxClasses = 16 // classes of one node
	MaxClass   = 32
	MaxCause   = 256 // longer causes are cut
)

// Check reports what is wrong with i, if anything.
func (i Info) Check() error {
	bad := func(format string, args ...any) error {
		return errno.New(errno.Invalid, "node description", 0, format, args...)
	}
	if len(i.Name) > MaxName || !printable(i.Name) {
		return bad("the name must be at most %d printable characters", MaxName)
	}
	if len(i.Others) > MaxOthers {
		return bad("more than %d addresses beside the first", MaxOthers)
	}
	for _, addr := range append([]string{i.Addr}, i.Others...) {
		if len(addr) > MaxAddr {
			return bad("the address is longer than %d bytes", MaxAddr)
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return bad("the address must be host:port: %w", err)
		}
	}
	if len(i.Classes) > MaxClasses {
		return bad("more than %d classes", MaxClasses)
	}
	for _, c := range i.Classes {
		if c == "" || len(c) > MaxClass || !printable(c) {
			return bad("a class must be 1 to %d printable characters", MaxClass)
		}
	}
	if i.Witness && i.Capable {
		return bad("a witness cannot be capable of init")
	}
	return nil
}

func printable(s string) bool {
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// cut shortens a cause to MaxCause bytes of printable text on one line.
func cut(s string) string {
	out := make([]rune, 0, min(len(s), MaxCause))
	size := 0
	for _, r := range s {
		if !unicode.IsPrint(r) {
			r = ' '
		}
		size += len(string(r))
		if size > MaxCause {
			break
		}
		out = append(out, r)
	}
	return string(out)
}
