package proc

import (
	"os"
	"reflect"
	"testing"
)

func TestLookup(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, f := range []string{a + "/x", b + "/x"} {
		if err := os.WriteFile(f, nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(a+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path, dir string
		want            []string
	}{
		{"x", a + ":" + b, "/", []string{a + "/x", b + "/x"}},
		{"x", "/no/such:" + b, "/", []string{b + "/x"}},
		{"x", "", a, []string{"./x"}},
		{"d", a, "/", nil},
		{"./y", a, "/", []string{"./y"}},
		{"y", a, "/", nil},
	} {
		if got := lookup(c.name, []string{"PATH=" + c.path}, c.dir); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s in %q: %q, want %q", c.name, c.path, got, c.want)
		}
	}
}
