package boot

import (
	"testing"
	"time"
)

func TestMemTotal(t *testing.T) {
	for text, want := range map[string]uint64{
		"MemTotal:         111948 kB\nMemFree:            6000 kB\n": 111948 << 10,
		"MemFree: 7 kB\nMemTotal: 1 kB":                              1 << 10,
		"":                                                           0,
		"MemTotal: -1 kB\n":                                          0,
		"MemTotal: 99999999999999999999 kB\n":                        0,
		"MemTotal: 5 MB\n":                                           0,
	} {
		got, err := memTotal(text)
		if (err != nil) != (want == 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

func TestRootTime(t *testing.T) {
	for line, want := range map[string]time.Duration{
		"":                        rootTime,
		"rootwait":                0,
		"rootwait=7":              7 * time.Second,
		"rootwait=0":              rootTime,
		"rootwait=x":              rootTime,
		"rootwait=99999999999999": rootTime,
		"rootdelay=3 rootwait=9":  9 * time.Second,
	} {
		if got := rootLimit(ParseCommandLine(line)); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}
