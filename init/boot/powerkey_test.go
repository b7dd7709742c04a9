package boot

import (
	"encoding/binary"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// inputEvent is a struct input_event.
func inputEvent(kind, code uint16, value uint32) []byte {
	b := make([]byte, 16, inputEventSize)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, code)
	return binary.NativeEndian.AppendUint32(b, value)
}

func inputEvents(list ...[]byte) []byte {
	var all []byte
	for _, e := range list {
		all = append(all, e...)
	}
	return all
}

func TestPowerPressed(t *testing.T) {
	syn := inputEvent(0, 0, 0)
	for _, c := range []struct {
		events []byte
		want   bool
	}{
		{inputEvents(inputEvent(1, 116, 1), syn), true},
		{inputEvents(inputEvent(1, 116, 0), syn), false},
		{inputEvents(inputEvent(1, 116, 2), syn), false},
		{inputEvents(inputEvent(4, 4, 0xde), inputEvent(1, 356, 1), syn), true},
		{inputEvents(inputEvent(1, 142, 1), syn), false}, // KEY_SLEEP
		{inputEvents(inputEvent(2, 116, 1), syn), false}, // a movement
		{inputEvents(inputEvent(1, 30, 1), syn, inputEvent(1, 30, 0), syn), false},
	} {
		if got, err := powerPressed(c.events); got != c.want || err != nil {
			t.Errorf("%x: %v, %v", c.events, got, err)
		}
	}
	for _, bad := range [][]byte{nil, make([]byte, 23), make([]byte, 25), append(inputEvent(1, 116, 1), 0)} {
		if got, err := powerPressed(bad); got || err == nil {
			t.Errorf("%d bytes were taken", len(bad))
		}
	}
}

func TestHasPowerKey(t *testing.T) {
	for keys, want := range map[string]bool{
		"10000000000000 0\n": true, // of ACPI's button
		"0\n":                false,
		"":                   false,
		"4000 0 0\n":         false, // KEY_SLEEP
		"402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n": true, // QEMU's keyboard
		"402000000 3803078f800d001 feefffdfffefffff fffffffffffffffe\n": false,
		"1000000000 0 0 0 0 0\n": true, // KEY_POWER2
		"20000000000 ff 0 f8cc01 78300058300 1f0bf0f7ff 3fffffffffffffff 1\n": true, // a keyboard with more
	} {
		if got, err := hasPowerKey(keys); got != want || err != nil {
			t.Errorf("%q: %v, %v", keys, got, err)
		}
	}
	for _, bad := range []string{"x", "10000000000000 g", "10000000000000000", "-1", "0x10", "10000000000000 " + strings.Repeat("0 ", 1000) + "\x00"} {
		if got, err := hasPowerKey(bad); got || err == nil {
			t.Errorf("%.40q was taken", bad)
		}
	}
}

func TestPowerMask(t *testing.T) {
	types, keys := powerMask()
	for name, c := range map[string]struct {
		bitmap []byte
		want   []int
	}{"types": {types, []int{1}}, "keys": {keys, []int{116, 356}}} {
		var got []int
		for i := range 8 * len(c.bitmap) {
			if c.bitmap[i/8]>>(i%8)&1 == 1 {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func FuzzPowerPressed(f *testing.F) {
	f.Add(inputEvents(inputEvent(1, 116, 1), inputEvent(0, 0, 0)))
	f.Add(inputEvent(1, 356, 2))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := powerPressed(b)
		want := false
		for rest := b; len(rest) >= 24; rest = rest[24:] {
			e := string(rest[16:24])
			want = want || e == string(inputEvent(1, 116, 1)[16:]) || e == string(inputEvent(1, 356, 1)[16:])
		}
		if whole := len(b) > 0 && len(b)%24 == 0; (err == nil) != whole || got != (want && whole) {
			t.Errorf("%x: %v, %v", b, got, err)
		}
	})
}

func FuzzPowerKey(f *testing.F) {
	f.Add("10000000000000 0\n")
	f.Add("402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe")
	f.Add("1000000000 0 0 0 0 0")
	f.Add("0x1 -1")
	f.Fuzz(func(t *testing.T, keys string) {
		got, err := hasPowerKey(keys)
		if err != nil {
			if got {
				t.Errorf("%q: %v with %v", keys, got, err)
			}
			return
		}
		all := new(big.Int)
		for _, w := range strings.Fields(keys) {
			bits, ok := new(big.Int).SetString(w, 16)
			if !ok || bits.Sign() < 0 || bits.BitLen() > 64 {
				t.Fatalf("%q was taken", keys)
			}
			all.Or(all.Lsh(all, 64), bits)
		}
		if want := all.Bit(116) == 1 || all.Bit(356) == 1; got != want {
			t.Errorf("%q: %v", keys, got)
		}
	})
}
