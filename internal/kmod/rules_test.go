package kmod

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadRules(t *testing.T) {
	etc, lib := t.TempDir(), t.TempDir()
	for file, text := range map[string]string{
		filepath.Join(etc, "a.conf"):  "# comment\noptions nf-conntrack hashsize=9 \\\n  enable_hooks=1\nblacklist e1000\n\nunknown x\noptions\n",
		filepath.Join(etc, "b.conf"):  "install of /bin/false\nalias my-* ip-vs\nsoftdep e1000 post: of\n",
		filepath.Join(lib, "a.conf"):  "options e1000 hidden=1\n",
		filepath.Join(etc, "b.other"): "blacklist ip_vs\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := ReadRules([]string{etc, filepath.Join(etc, "nosuch"), lib},
		`quiet bonding.max_bonds=1 dummy.text="a b.c=d" modprobe.blacklist=a,b-c module_blacklist=nbd root=UUID=1.2 -- not.this=1`)
	if err != nil {
		t.Fatal(err)
	}
	for module, want := range map[string][]string{
		"nf_conntrack": {"hashsize=9", "enable_hooks=1"},
		"bonding":      {"max_bonds=0", "max_bonds=1"},
		"dummy":        {`text="a b.c=d"`},
		"e1000":        nil,
		"not":          nil,
	} {
		if got := r.Params(module); !slices.Equal(got, want) {
			t.Errorf("parameters of %s: %q, want %q", module, got, want)
		}
	}
	for _, m := range []string{"a", "b_c", "e1000", "nbd", "of"} {
		if !r.blacklisted(m) {
			t.Errorf("%s is not in the blacklist", m)
		}
	}
	if got := r.refusal("of"); !strings.HasSuffix(got, "b.conf:1: install of /bin/false") {
		t.Errorf("refusal of of: %q", got)
	}
	want := []string{filepath.Join(etc, "a.conf") + `:6: "unknown" is not known; ignored`, filepath.Join(etc, "a.conf") + `:7: "options" without a module; ignored`}
	if diff := cmp.Diff(want, r.Warnings()); diff != "" {
		t.Error(diff)
	}

	x := open(t, sample(t))
	if got := steps(t, x, "e1000", r); got != "e1000 (of)" { // by its name, though blacklisted; Load keeps of out
		t.Errorf("e1000: %q", got)
	}
	if got := steps(t, x, "pci:v00008086d0000100Esvsdbcsci", r); got != "" {
		t.Errorf("blacklisted, by alias: %q", got)
	}
	if got := steps(t, x, "my-balancer", r); !strings.HasSuffix(got, " ip_vs") {
		t.Errorf("own alias: %q", got)
	}
}

func FuzzRules(f *testing.F) {
	f.Add("options a b=c\\\nblacklist x", `a.b="c d" module_blacklist=,x`)
	f.Fuzz(func(_ *testing.T, file, cmdline string) {
		r := NewRules()
		r.AddFile("fuzz", file)
		r.AddCmdline(cmdline)
		r.Params("a")
	})
}
