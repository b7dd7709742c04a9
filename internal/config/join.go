package config

import (
	"fmt"
	"os"
	"strings"
)

const (
	// TokenPrefix begins every one-time token.
	TokenPrefix = "ssi1-"
	// MaxJoinFile is the size limit of a join file in bytes.
	MaxJoinFile = 64 << 10
	// MaxJoinAddrs is how many addresses are taken.
	MaxJoinAddrs = 64
)

// Join is what a machine needs in order to join a cluster.
type Join struct {
	Token string   // a secret
	Addrs []string // host:port; may be empty
}

// ReadJoin reads a join file. As it holds a secret, it is refused when others
// can read it.
func ReadJoin(path string) (Join, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Join{}, err
	}
	if mode := info.Mode().Perm(); info.Mode().IsRegular() && mode&0o077 != 0 {
		return Join{}, &Error{File: path, Text: fmt.Sprintf("holds a secret and others may read it (mode %04o): chmod 600 it; if others are on this machine, make a new token", mode)}
	}
	b, err := readFile(path, MaxJoinFile)
	if err != nil {
		return Join{}, err
	}
	return ParseJoin(path, string(b))
}

// ParseJoin reads a token and the addresses behind it, separated by white
// space; # begins a comment. from is where the text is from, for messages.
func ParseJoin(from, text string) (Join, error) {
	if len(text) > MaxJoinFile {
		return Join{}, &Error{File: from, Text: fmt.Sprintf("longer than %d bytes", MaxJoinFile)}
	}
	var join Join
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		for _, word := range strings.Fields(line) {
			switch {
			case join.Token == "" && strings.HasPrefix(word, TokenPrefix):
				join.Token = word
			case join.Token == "": // never print it: it may be a damaged token
				return Join{}, &Error{File: from, Line: n, Col: 1, Text: "the first word is no token: a token begins with " + TokenPrefix + " and is made by `cluster token`"}
			case strings.HasPrefix(word, TokenPrefix):
				return Join{}, &Error{File: from, Line: n, Col: 1, Text: "there is a second token; one is enough"}
			case len(join.Addrs) == MaxJoinAddrs:
				return Join{}, &Error{File: from, Line: n, Col: 1, Text: fmt.Sprintf("more than %d addresses", MaxJoinAddrs)}
			default:
				addr, err := CompleteAddr(word)
				if err != nil {
					return Join{}, &Error{File: from, Line: n, Col: 1, Text: err.Error()}
				}
				join.Addrs = append(join.Addrs, addr)
			}
		}
	}
	if join.Token == "" {
		return Join{}, &Error{File: from, Text: "no token: `cluster token` makes one"}
	}
	return join, nil
}
