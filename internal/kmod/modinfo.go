package kmod

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Info is what a module says of itself in its section .modinfo
// (include/linux/module.h, MODULE_INFO).
type Info struct {
	Name     string   // as the kernel has it; "" in very old modules
	Depends  []string // names of the modules whose symbols it uses
	Aliases  []string // patterns
	Soft     []Soft
	Firmware []string // paths below /lib/firmware
	VerMagic string   // begins with the kernel's version
}

// Soft is a soft dependency: modules (or aliases) to load before and after this
// one if they are there.
type Soft struct{ Pre, Post []string }

func (s Soft) empty() bool { return len(s.Pre)+len(s.Post) == 0 }

// ReadInfo reads it from an uncompressed module.
func ReadInfo(module []byte) (info Info, err error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return Info{}, notModule(err)
	}
	if f.Type != elf.ET_REL {
		return Info{}, notModule(fmt.Errorf("ELF type %v", f.Type))
	}
	s := f.Section(".modinfo")
	if s == nil {
		return Info{}, notModule(errors.New("no section .modinfo"))
	}
	if s.Type != elf.SHT_PROGBITS || s.Size > uint64(len(module)) {
		return Info{}, notModule(errors.New("its section .modinfo is damaged"))
	}
	b, err := s.Data()
	if err != nil {
		return Info{}, notModule(err)
	}
	return ParseInfo(b), nil
}

func notModule(err error) error {
	return fmt.Errorf("this is no whole kernel module (truncated or damaged?): %w", err)
}

// ParseInfo reads a section .modinfo: key=value, each ended by NUL.
func ParseInfo(b []byte) Info {
	var info Info
	for field := range bytes.SplitSeq(b, []byte{0}) {
		key, value, ok := strings.Cut(string(field), "=")
		if !ok || strings.ContainsAny(value, "\n\r") {
			continue // would be two lines of an index
		}
		switch key {
		case "name":
			info.Name = Name(value)
		case "depends":
			for d := range strings.SplitSeq(value, ",") {
				if d = strings.TrimSpace(d); d != "" {
					info.Depends = append(info.Depends, Name(d))
				}
			}
		case "alias":
			info.Aliases = append(info.Aliases, value)
		case "softdep":
			if s := parseSoft(strings.Fields(value)); !s.empty() {
				info.Soft = append(info.Soft, s)
			}
		case "firmware":
			info.Firmware = append(info.Firmware, value)
		case "vermagic":
			info.VerMagic = value
		}
	}
	return info
}

// parseSoft reads "pre: a b post: c".
func parseSoft(words []string) Soft {
	var s Soft
	var list *[]string
	for _, w := range words {
		switch w {
		case "pre:":
			list = &s.Pre
		case "post:":
			list = &s.Post
		default:
			if list != nil {
				*list = append(*list, w)
			}
		}
	}
	return s
}

// line is the soft dependency as in modules.softdep.
func (s Soft) line(module string) string {
	words := []string{"softdep", module}
	if len(s.Pre) > 0 {
		words = slices.Concat(words, []string{"pre:"}, s.Pre)
	}
	if len(s.Post) > 0 {
		words = slices.Concat(words, []string{"post:"}, s.Post)
	}
	return strings.Join(words, " ") + "\n"
}
