package config

import (
	"fmt"
	"strings"
)

// place is where something stands in a text: line and column in bytes, from 1.
type place struct{ line, col int }

// places finds where the keys of a TOML text stand, by path: "netboot.mode",
// "interface[1].vlan.id" (elements of arrays count from 0). The decoder tells
// places only of what it refuses itself. The text must be one that the decoder
// takes; of any other the result may miss keys.
func places(text string) map[string]place {
	s := scanner{text: text, at: map[string]int{}, tables: map[string]int{}}
	s.document()
	out := make(map[string]place, len(s.at))
	for path, offset := range s.at {
		out[path] = place{line: 1 + strings.Count(text[:offset], "\n"), col: offset - strings.LastIndexByte(text[:offset], '\n')}
	}
	return out
}

// scanner walks over a TOML text (https://toml.io/en/v1.0.0) without
// understanding its values.
type scanner struct {
	text   string
	i      int
	at     map[string]int // path -> offset of its first mention
	tables map[string]int // path of an array of tables -> how many there are
}

// document goes over the text; of what is no TOML every loop takes a byte, so
// that it ends.
func (s *scanner) document() {
	prefix := ""
	for s.blank(); s.i < len(s.text); s.blank() {
		start := s.i
		if s.skip("[") {
			prefix = s.header(s.skip("["))
			s.skip("]")
			s.skip("]")
		} else {
			s.setting(prefix)
		}
		if s.i == start {
			s.i++ // no TOML: go on somewhere
		}
	}
}

// header reads the name of a table and returns the path of what it begins.
func (s *scanner) header(array bool) string {
	path := ""
	parts := s.key()
	for n, part := range parts {
		path = join(path, part.name)
		s.mark(path, part.offset)
		switch {
		case array && n == len(parts)-1:
			s.tables[path]++
			fallthrough
		case s.tables[path] > 0:
			path = fmt.Sprintf("%s[%d]", path, s.tables[path]-1)
			s.mark(path, part.offset)
		}
	}
	return path
}

// setting reads "key = value".
func (s *scanner) setting(prefix string) {
	path := prefix
	for _, part := range s.key() {
		path = join(path, part.name)
		s.mark(path, part.offset)
	}
	if s.skip("=") {
		s.value(path)
	}
}

func (s *scanner) value(path string) {
	s.blank()
	rest := s.text[s.i:]
	switch {
	case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, "'''"):
		s.quoted(rest[:3])
		for s.i < len(s.text) && s.text[s.i] == rest[0] { // it may end in up to two quotes of its own
			s.i++
		}
	case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, "'"):
		s.quoted(rest[:1])
	case s.skip("["):
		for n := 0; s.more("]"); n++ {
			start, element := s.i, fmt.Sprintf("%s[%d]", path, n)
			s.mark(element, start)
			s.value(element)
			s.i = max(s.i, start+1)
		}
	case s.skip("{"):
		for s.more("}") {
			start := s.i
			s.setting(path)
			s.i = max(s.i, start+1)
		}
	default:
		for s.i < len(s.text) && !strings.ContainsRune(",]}#\n", rune(s.text[s.i])) {
			s.i++
		}
	}
}

// more goes to the next element of an array or inline table, or behind its end.
func (s *scanner) more(end string) bool {
	s.blank()
	if s.skip(",") {
		s.blank()
	}
	if s.i >= len(s.text) || s.skip(end) {
		return false
	}
	return true
}

type keyPart struct {
	name   string
	offset int
}

// key reads the parts of a dotted key and the blanks behind it.
func (s *scanner) key() []keyPart {
	var parts []keyPart
	for {
		s.spaces()
		start := s.i
		if s.i < len(s.text) && (s.text[s.i] == '"' || s.text[s.i] == '\'') {
			s.quoted(s.text[s.i : s.i+1])
			parts = append(parts, keyPart{visible(strings.Trim(s.text[start:s.i], `"'`)), start})
		} else {
			for s.i < len(s.text) && !strings.ContainsRune(" \t\r\n.=[]{},#\"'", rune(s.text[s.i])) {
				s.i++
			}
			parts = append(parts, keyPart{s.text[start:s.i], start})
		}
		s.spaces()
		if !s.skip(".") {
			return parts
		}
	}
}

// visible is a key in a path: TOML has an empty one, which would vanish.
func visible(name string) string {
	if name == "" {
		return `""`
	}
	return name
}

// quoted goes behind a string that begins here with the given quote.
func (s *scanner) quoted(quote string) {
	for s.i += len(quote); s.i < len(s.text); s.i++ {
		if s.text[s.i] == '\\' && quote[0] == '"' {
			s.i++
		} else if s.skip(quote) {
			return
		}
	}
	s.i = min(s.i, len(s.text))
}

// blank skips white space, line ends and comments.
func (s *scanner) blank() {
	for s.i < len(s.text) {
		switch s.text[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		case '#':
			for s.i < len(s.text) && s.text[s.i] != '\n' {
				s.i++
			}
		default:
			return
		}
	}
}

func (s *scanner) spaces() {
	for s.i < len(s.text) && (s.text[s.i] == ' ' || s.text[s.i] == '\t') {
		s.i++
	}
}

func (s *scanner) skip(word string) bool {
	if !strings.HasPrefix(s.text[s.i:], word) {
		return false
	}
	s.i += len(word)
	return true
}

func (s *scanner) mark(path string, offset int) {
	if _, known := s.at[path]; !known {
		s.at[path] = offset
	}
}

// join makes a path of two; each may be empty.
func join(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "." + name
}

// find is the place of a path or, when it is not in the text, of what it would
// be in: a missing name of a table is at the table.
func find(all map[string]place, path string) place {
	for path != "" {
		if p, found := all[path]; found {
			return p
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return place{}
}
