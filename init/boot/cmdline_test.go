package boot

import (
	"reflect"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		text string
		want CommandLine
	}{
		{"", nil},
		{" \n", nil},
		{"quiet ro", CommandLine{{Name: "quiet"}, {Name: "ro"}}},
		{"root=UUID=a-b\n", CommandLine{{"root", "UUID=a-b", true}}},
		{"a=", CommandLine{{"a", "", true}}},
		{`dyndbg="file a +p" x`, CommandLine{{"dyndbg", "file a +p", true}, {Name: "x"}}},
		{`"a b=c d" e`, CommandLine{{"a b", "c d", true}, {Name: "e"}}},
		{`"a b" c`, CommandLine{{Name: "a b"}, {Name: "c"}}},
		{`a="b c`, CommandLine{{"a", "b c", true}}},
		{`a=b"c d"e`, CommandLine{{"a", `b"c d"e`, true}}},
		{`"`, CommandLine{{}}},
		{"ssi.boot-if=x", CommandLine{{"ssi.boot_if", "x", true}}},
		{"=x", CommandLine{{Name: "=x"}}},
		{"a -- b=c", CommandLine{{Name: "a"}}},
	} {
		if got := ParseCommandLine(c.text); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %#v, want %#v", c.text, got, c.want)
		}
	}
	c := ParseCommandLine("ro console=tty0 rw console=ttyS0 ssi.a=1 ssi.a=2 ssi. ro=5")
	if v, ok := c.Get("console"); v != "ttyS0" || !ok {
		t.Errorf("console=%q", v)
	}
	if got := c.SSI(); !reflect.DeepEqual(got, map[string]string{"a": "2"}) {
		t.Errorf("%v", got)
	}
	if c.ReadOnly() || !ParseCommandLine("rw ro").ReadOnly() || !ParseCommandLine("").ReadOnly() {
		t.Error("the last of ro and rw decides, and ro without either")
	}
	if c.Has("tty0") || !c.Has("ro") {
		t.Error("Has")
	}
}

func FuzzCommandLine(f *testing.F) {
	for _, s := range []string{"root=/dev/sda1 ro quiet", `a="b c" "d e=f"`, `"`, "=", "--", "\xa0\x00x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		for _, p := range ParseCommandLine(text) {
			n += len(p.Name) + len(p.Value)
			if strings.Contains(p.Name, "-") {
				t.Errorf("%q: a dash in %q", text, p.Name)
			}
			if !p.Set && p.Value != "" {
				t.Errorf("%q: %q has a value and no =", text, p.Name)
			}
		}
		if n > len(text) {
			t.Errorf("%q: more came out than went in", text)
		}
	})
}
