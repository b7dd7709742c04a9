package registry

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"ssi/internal/errno"
)

// System is the prefix of the keys that belong to ssi itself.
const System = "/sys"

// CheckKey returns an error of kind errno.Invalid if key is no valid key. The
// rules are in the package doc.
func CheckKey(key string) error {
	switch {
	case key == "":
		return errno.New(errno.Invalid, "", 0, "the key is empty: a key is a path like /a/b")
	case len(key) > MaxKey:
		return errno.New(errno.Invalid, "", 0, "key %.40q… has %d bytes, the limit is %d", key, len(key), MaxKey)
	case key[0] != '/':
		return errno.New(errno.Invalid, "", 0, "key %q must start with /", key)
	case key[len(key)-1] == '/':
		return errno.New(errno.Invalid, "", 0, "key %q must not end in /", key)
	}
	start := 1
	for i, r := range key {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return errno.New(errno.Invalid, "", 0, "key %q has a character at byte %d that is not printable UTF-8", key, i)
		}
		if r != '/' || i == 0 {
			continue
		}
		if err := checkSegment(key, key[start:i]); err != nil {
			return err
		}
		start = i + 1
	}
	return checkSegment(key, key[start:])
}

func checkSegment(key, s string) error {
	switch s {
	case "":
		return errno.New(errno.Invalid, "", 0, "key %q has an empty segment", key)
	case ".", "..":
		return errno.New(errno.Invalid, "", 0, "key %q has a segment %q", key, s)
	}
	return nil
}

// CheckPrefix returns an error of kind errno.Invalid if prefix is no valid
// prefix: a key, a key and a slash, "/" or "".
func CheckPrefix(prefix string) error {
	if prefix == "" || prefix == "/" {
		return nil
	}
	if len(prefix) > MaxKey {
		return CheckKey(prefix)
	}
	return CheckKey(strings.TrimSuffix(prefix, "/"))
}

// Under reports whether key lies under a valid prefix.
func Under(prefix, key string) bool {
	if prefix == "" || prefix == "/" {
		return true
	}
	if !strings.HasPrefix(key, prefix) {
		return false
	}
	return prefix[len(prefix)-1] == '/' || len(key) == len(prefix) || key[len(prefix)] == '/'
}

// touchesSystem reports whether a change under prefix may change system keys.
func touchesSystem(prefix string) bool {
	return Under(System, strings.TrimSuffix(prefix, "/")) || Under(prefix, System)
}
