package boot

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Of input-event-codes.h of the kernel.
const (
	evSyn     = 0x00
	evKey     = 0x01
	keyPower  = 116   // KEY_POWER
	keyPower2 = 0x164 // KEY_POWER2, of some keyboards
)

// inputEventSize is the size of struct input_event in input.h of the kernel, on
// machines of 64 bits: the time, 16 bytes; type and code, 2 each; value, 4.
const inputEventSize = 24

// powerPressed reports whether a power key was pressed; that it is let go, or repeats
// because it is held, does not count. It takes what a read of evdev gave: whole
// events, in the byte order of the machine (kernel file Documentation/input/input.rst).
func powerPressed(b []byte) (bool, error) {
	if len(b) == 0 || len(b)%inputEventSize != 0 {
		return false, fmt.Errorf("%d bytes are no input events, which have %d each", len(b), inputEventSize)
	}
	for e := range slices.Chunk(b, inputEventSize) {
		kind, code, value := binary.NativeEndian.Uint16(e[16:]), binary.NativeEndian.Uint16(e[18:]), binary.NativeEndian.Uint32(e[20:])
		if kind == evKey && (code == keyPower || code == keyPower2) && value == 1 {
			return true, nil
		}
	}
	return false, nil
}

// powerMask are the bitmaps of sys.InputMask that leave nothing but presses of power
// keys: of the types of events, and of the keys.
func powerMask() (types, keys []byte) {
	types, keys = make([]byte, 8), make([]byte, 96) // room for EV_CNT and KEY_CNT bits
	types[evKey/8] |= 1 << (evKey % 8)
	for _, key := range []int{keyPower, keyPower2} {
		keys[key/8] |= 1 << (key % 8)
	}
	return types, keys
}

// hasPowerKey reports whether the keys of an input device, as its file capabilities/key
// in sysfs gives them, have a power key. They are bits in hexadecimal words of 64, the
// highest word first (kernel file drivers/input/input.c, input_print_bitmap).
func hasPowerKey(keys string) (bool, error) {
	words := strings.Fields(keys)
	slices.Reverse(words)
	has := false
	for i, w := range words {
		bits, err := strconv.ParseUint(w, 16, 64)
		if err != nil {
			return false, fmt.Errorf("the keys of an input device: %s: no hexadecimal number of 64 bits", cut(strconv.Quote(w)))
		}
		for _, key := range []int{keyPower, keyPower2} {
			has = has || i == key/64 && bits>>(key%64)&1 == 1
		}
	}
	return has, nil
}
