package boot

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// leastMemory is what the kernel must have (MemTotal) for a node to work: a root
// in memory takes 50 MiB of it, the node daemon up to 60. With less than about 110
// the kernel cannot even unpack the initramfs; what the console shows then is
// the kernel's.
const leastMemory = 160 << 20

// checkMemory says when the memory is too small: what happens next is that
// processes are killed, which looks like anything but a lack of memory.
func (b *boot) checkMemory(context.Context, func(string)) (string, error) {
	text, err := readLimited("/proc/meminfo", 64<<10)
	if err != nil {
		return "", err
	}
	total, err := memTotal(text)
	if err != nil {
		return "", err
	}
	if total < leastMemory {
		return "", fmt.Errorf("this machine has %d MiB of memory, a node needs %d: programs may be killed at any time; give it more", total>>20, leastMemory>>20)
	}
	return fmt.Sprintf("%d MiB", total>>20), nil
}

// memTotal is that of proc_meminfo(5), in bytes.
func memTotal(meminfo string) (uint64, error) {
	for line := range strings.Lines(meminfo) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "MemTotal:" || f[2] != "kB" {
			continue
		}
		kb, err := strconv.ParseUint(f[1], 10, 54)
		return kb << 10, err
	}
	return 0, errors.New("/proc/meminfo does not tell MemTotal")
}
