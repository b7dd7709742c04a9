package kmod

import "strings"

// Match reports whether a name matches a pattern of fnmatch(3) without flags,
// as in modules.alias: * is any text, ? any byte, [a-c] and [!a-c] one byte, \
// takes away the next byte's meaning. Unlike path.Match, a slash is a byte like
// any other; a bracket that does not end is one, too. It needs no more than
// len(pattern)*len(name) steps.
func Match(pattern, name string) bool {
	p, n := 0, 0
	star, mark := -1, 0 // behind the last *, and what it has not eaten yet
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, mark = p, n
			continue
		}
		if width, ok := matchByte(pattern[p:], name[n]); ok {
			p += width
			n++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, n = star, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchByte reports whether c matches the first element of a pattern, and how
// many bytes that has.
func matchByte(pattern string, c byte) (width int, ok bool) {
	if pattern == "" {
		return 0, false
	}
	switch pattern[0] {
	case '?':
		return 1, true
	case '\\':
		if len(pattern) > 1 {
			return 2, pattern[1] == c
		}
	case '[':
		if width, ok := matchSet(pattern, c); width > 0 {
			return width, ok
		}
	}
	return 1, pattern[0] == c
}

// matchSet does so for a bracket; width is 0 if it does not end.
func matchSet(pattern string, c byte) (width int, ok bool) {
	i, not := 1, false
	if i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^') {
		not = true
		i++
	}
	for first := true; i < len(pattern); first = false {
		low := pattern[i]
		if low == ']' && !first {
			return i + 1, ok != not
		}
		if low == '\\' && i+1 < len(pattern) {
			i++
			low = pattern[i]
		}
		high := low
		if i+2 < len(pattern) && pattern[i+1] == '-' && pattern[i+2] != ']' {
			i += 2
			high = pattern[i]
		}
		ok = ok || low <= c && c <= high
		i++
	}
	return 0, false
}

// literal is what a pattern's matches begin with.
func literal(pattern string) string {
	for i := range len(pattern) {
		switch pattern[i] {
		case '*', '?', '[', '\\':
			return pattern[:i]
		}
	}
	return pattern
}

// Name is a module's name as the kernel has it: a dash is an underscore.
func Name(name string) string {
	if !strings.Contains(name, "-") {
		return name
	}
	b := []byte(name)
	for i, c := range b {
		if c == '-' {
			b[i] = '_'
		}
	}
	return string(b)
}

// underscores does so outside of brackets, where a dash is a range: for aliases
// and what is compared with them.
func underscores(alias string) string {
	if !strings.Contains(alias, "-") {
		return alias
	}
	b, in := []byte(alias), false
	for i, c := range b {
		switch {
		case c == '[':
			in = true
		case c == ']':
			in = false
		case c == '-' && !in:
			b[i] = '_'
		}
	}
	return string(b)
}
