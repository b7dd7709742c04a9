package proctab

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
)

// ttyRange is one line of /proc/tty/drivers: the terminals of a driver.
type ttyRange struct {
	name        string // without /dev/
	major       uint32
	first, last uint32
	single      bool // one device, whose name has no number
}

// ptsMajor to ptsLastMajor are the pseudo terminals (Documentation/admin-guide/devices.txt).
const (
	ptsMajor     = 136
	ptsLastMajor = 143
)

// parseTTYDrivers reads /proc/tty/drivers. Lines of another form are left out:
// their terminals are then shown by number.
func parseTTYDrivers(b []byte) []ttyRange {
	const maxDrivers = 256
	var all []ttyRange
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan() && len(all) < maxDrivers; {
		f := strings.Fields(s.Text())
		if len(f) < 4 {
			continue
		}
		name, ok := strings.CutPrefix(f[1], "/dev/")
		major, err := strconv.ParseUint(f[2], 10, 12)
		if !ok || err != nil {
			continue
		}
		from, to, isRange := strings.Cut(f[3], "-")
		first, err := strconv.ParseUint(from, 10, 20)
		if err != nil {
			continue
		}
		last := first
		if isRange {
			if last, err = strconv.ParseUint(to, 10, 20); err != nil || last < first {
				continue
			}
		}
		all = append(all, ttyRange{name: name, major: uint32(major), first: uint32(first), last: uint32(last), single: !isRange})
	}
	return all
}

// ttyName is the name of terminal nr (as in stat(5)) without /dev/: "pts/3",
// "tty1", "ttyS0"; "" if there is none.
func ttyName(nr uint32, drivers []ttyRange) string {
	if nr == 0 {
		return ""
	}
	// The encoding of new_encode_dev in include/linux/kdev_t.h.
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	if major >= ptsMajor && major <= ptsLastMajor {
		return "pts/" + strconv.Itoa(int(minor+(major-ptsMajor)<<8))
	}
	for _, d := range drivers {
		if d.major != major || minor < d.first || minor > d.last {
			continue
		}
		switch {
		case d.single:
			return d.name
		case d.name == "tty": // tty1 is minor 1, while ttyS0 is minor 64
			return d.name + strconv.Itoa(int(minor))
		default:
			return d.name + strconv.Itoa(int(minor-d.first))
		}
	}
	return strconv.Itoa(int(major)) + ":" + strconv.Itoa(int(minor))
}
