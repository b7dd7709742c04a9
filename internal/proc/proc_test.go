package proc

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func full() *Spec {
	return &Spec{
		Argv: []string{"ls", "", "\xff"}, Path: "./ls", Env: []string{"A=1", ""}, Dir: "/tmp", UID: 1, GID: 2, Groups: []uint32{3, 4},
		Umask: 0o27, Nice: -5, Limits: []Rlimit{{7, 1, 1<<64 - 1}}, Session: true, Background: true, Ignored: 1 << 63,
		Place: Place{PID: 70000, Parent: 70001, ParentGroup: 70002, ParentSession: 70003, Group: 70004, GroupParent: 70005, Session: 70006},
	}
}

func TestSpecSurvivesTheWire(t *testing.T) {
	for _, s := range []*Spec{full(), {Argv: []string{"a"}, Dir: "/"}} {
		b, err := s.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s, got); d != "" {
			t.Error(d)
		}
		for i := range b {
			if _, err := Decode(b[:i]); err == nil {
				t.Errorf("the first %d of %d bytes were accepted", i, len(b))
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"no command":     func(s *Spec) { s.Argv = nil },
		"empty command":  func(s *Spec) { s.Argv[0], s.Path = "", "" },
		"no path":        func(s *Spec) { s.Path = "ls" },
		"relative dir":   func(s *Spec) { s.Dir = "tmp" },
		"nobody":         func(s *Spec) { s.UID = 1<<32 - 1 },
		"background":     func(s *Spec) { s.Session = false },
		"place":          func(s *Spec) { s.Place.Group = -1 },
		"no parent":      func(s *Spec) { s.Place.Parent = 0 },
		"umask":          func(s *Spec) { s.Umask = 0o1000 },
		"nice":           func(s *Spec) { s.Nice = 20 },
		"limit":          func(s *Spec) { s.Limits[0].Cur, s.Limits[0].Max = 2, 1 },
		"NUL in a value": func(s *Spec) { s.Env[0] = "A=\x00" },
	} {
		s := full()
		change(s)
		b, err := s.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s := full()
	s.Env = []string{strings.Repeat("x", MaxSpec)}
	if _, err := s.Append(nil); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	b, err := full().Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		again, err := s.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(again)
		if err != nil || !cmp.Equal(s, got) {
			t.Fatalf("%v: %s", err, cmp.Diff(s, got))
		}
	})
}

func FuzzDecodeFailure(f *testing.F) {
	f.Add((&Failure{Op: "exec", Path: "/x", Errno: 2}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if g := DecodeFailure(b); g != nil {
			if again := DecodeFailure(g.Append(nil)); again == nil || again.Errno != g.Errno || again.Op != g.Op {
				t.Fatalf("%+v %+v", g, again)
			}
		}
	})
}
