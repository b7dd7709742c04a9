package kmod

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func open(t testing.TB, dir string) *Index {
	t.Helper()
	x, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func steps(t *testing.T, x *Index, name string, rules *Rules) string {
	t.Helper()
	all, err := x.Resolve(name, rules)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range all {
		n := s.Module.Name
		if !s.Needed {
			n = "(" + n + ")"
		}
		names = append(names, n)
	}
	return strings.Join(names, " ")
}

// The index is the same from the modules and from the files written from it.
func TestResolve(t *testing.T) {
	dir := sample(t)
	scanned := open(t, dir)
	if err := scanned.Save(); err != nil {
		t.Fatal(err)
	}
	read := open(t, dir)
	for how, x := range map[string]*Index{"scanned": scanned, "read": read} {
		for _, c := range []struct{ name, want string }{
			{"e1000", "e1000"},
			{"pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", "e1000"},
			// crc32c is an alias of two; both come before who wants it, and may fail.
			{"ip-vs", "(crc32c_intel) (crc32c_generic) libcrc32c nf_defrag nf_conntrack ip_vs"},
			{"net-pf-16-proto-16-family-IPVS", "(crc32c_intel) (crc32c_generic) libcrc32c nf_defrag nf_conntrack ip_vs"},
			{"crc32c", "crc32c_intel crc32c_generic"},
			{"virtio_blk", ""},
			{"virtio:d00000002v00001AF4", ""},
			{"of:NethT(null)Cacme,nic/v2/x", "of"}, // * takes a slash
		} {
			if got := steps(t, x, c.name, nil); got != c.want {
				t.Errorf("%s: %s: %q, want %q", how, c.name, got, c.want)
			}
		}
		if _, err := x.Resolve("pci:v00001234d*", nil); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: unknown device: %v", how, err)
		}
	}
	all := func(m *Module) (string, bool) { return m.Path, true }
	if diff := cmp.Diff(scanned.Files(all), read.Files(all)); diff != "" {
		t.Errorf("written again it differs: %s", diff)
	}
	if scanned.Version() != "6.12.0-test" || !scanned.Builtin("virtio-blk") || scanned.Builtin("e1000") {
		t.Error("version or built-in modules are wrong")
	}
}

func TestFilesOfSubset(t *testing.T) {
	x := open(t, sample(t))
	files := x.Files(func(m *Module) (string, bool) {
		plain, _, _ := splitSuffix(m.Path)
		return plain, m.Name != "e1000" && m.Name != "of"
	})
	want := "kernel/net/ip_vs.ko: kernel/net/nf_conntrack.ko kernel/net/nf_defrag.ko kernel/lib/libcrc32c.ko\n"
	if dep := string(files["modules.dep"]); !strings.Contains(dep, want) || strings.Contains(dep, "e1000") || strings.Contains(dep, ".xz") {
		t.Errorf("modules.dep is\n%s", dep)
	}
	if soft := string(files["modules.softdep"]); soft != "softdep libcrc32c pre: crc32c\n" {
		t.Errorf("modules.softdep is %q", soft)
	}
	if alias := string(files["modules.alias"]); strings.Contains(alias, "e1000") || strings.Contains(alias, "virtio") || !strings.Contains(alias, "alias crc32c crc32c_generic\n") {
		t.Errorf("modules.alias is\n%s", alias)
	}
}

func TestSelect(t *testing.T) {
	x := open(t, sample(t))
	for pattern, want := range map[string]string{
		"crc32c*": "crc32c_intel crc32c_generic", "crc32c-*": "crc32c_intel crc32c_generic", "kernel/net/*": "ip_vs nf_conntrack nf_defrag",
		"kernel/net/ip_vs.ko": "ip_vs", "nosuch": "",
	} {
		var names []string
		for _, m := range x.Select(pattern) {
			names = append(names, m.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
}

func TestOpenBad(t *testing.T) {
	whole := module("name=a", "depends=")
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing":          {map[string]string{"modules.order": ""}, "has none"},
		"truncated module": {map[string]string{"kernel/a.ko": string(whole[:len(whole)-70])}, "a.ko: this is no whole kernel module"},
		"garbage":          {map[string]string{"kernel/a.ko": "garbage"}, "a.ko: this is no whole kernel module"},
		"garbage xz":       {map[string]string{"kernel/a.ko.xz": "garbage garbage garbage"}, "truncated or damaged"},
		"truncated xz":     {map[string]string{"kernel/a.ko.xz": string(compress(t, "a.xz", whole)[:60])}, "truncated or damaged"},
		"truncated zst":    {map[string]string{"kernel/a.ko.zst": string(compress(t, "a.zst", whole)[:60])}, "truncated or damaged"},
		"empty gz":         {map[string]string{"kernel/a.ko.gz": ""}, "truncated or damaged"},
		"damaged dep":      {map[string]string{"modules.dep": "kernel/a.ko\n"}, "entry 1: \"kernel/a.ko\" has no colon"},
		"dep outside":      {map[string]string{"modules.dep": "../../etc/a.ko:\n"}, "is no path of a module"},
	} {
		_, err := Open(tree(t, nil, c.files))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, name := range []string{"a.xz", "a.zst", "a.gz", "a"} {
		_, compression, _ := splitSuffix("a.ko" + strings.TrimPrefix(name, "a"))
		if _, err := decompress(strings.NewReader(string(compress(t, name, make([]byte, 3<<20)))), compression, 2<<20); err == nil || !strings.Contains(err.Error(), "more than 2 MiB") {
			t.Errorf("%s: a module that is too big: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "nosuch")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing tree: %v", err)
	}
}

// A cycle of dependencies, which no kernel has, ends.
func TestResolveCycle(t *testing.T) {
	x := open(t, tree(t, map[string][]string{
		"kernel/a.ko": {"name=a", "depends=b", "softdep=post: a b"},
		"kernel/b.ko": {"name=b", "depends=a", "softdep=pre: b"},
	}, nil))
	if got := steps(t, x, "a", nil); got != "b a" {
		t.Errorf("got %q", got)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"*", "", true}, {"*", "a/b", true}, {"a?c", "abc", true}, {"a?c", "ac", false},
		{"a*b*c", "axxbyybzc", true}, {"a*b*c", "axxbyyb", false}, {"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false},
		{"[]a]", "]", true}, {"[", "[", true}, {"[a", "[a", true}, {`\*`, "*", true}, {`\*`, "a", false},
		{"usb:v*p*d*dc*dsc*dp*ic03isc01ip01in*", "usb:v1234p5678d0001dc00dsc00dp00ic03isc01ip01in00", true},
		{"pci:v00008086d0000[0-9]*", "pci:v00008086d000010D3", true},
	} {
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*[b-d]?\\*", "axxc.*")
	f.Add("[[[[", "[[[[")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		_ = Match(pattern, name) // no panic, and an end
		if !Match(pattern+"*", name) && Match(pattern, name) && !strings.HasSuffix(pattern, `\`) && !strings.Contains(pattern, "[") {
			t.Errorf("%q matches %q, but not with a * behind", pattern, name)
		}
		if !strings.ContainsAny(pattern, `*?[\`) && Match(pattern, name) != (pattern == name) {
			t.Errorf("%q without wildcards, %q", pattern, name)
		}
	})
}

func FuzzReadInfo(f *testing.F) {
	f.Add(module("name=a", "depends=b,c", "alias=x*", "softdep=pre: a post: b"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ReadInfo(b)
		ParseInfo(b)
	})
}

func FuzzDecompress(f *testing.F) {
	for i, ext := range []string{".xz", ".zst", ".gz"} {
		f.Add(compress(f, ext, module("name=a")), byte(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, kind byte) {
		const limit = 1 << 20
		out, err := decompress(strings.NewReader(string(b)), []string{"xz", "zstd", "gzip"}[kind%3], limit)
		if err == nil && len(out) > limit {
			t.Error("more than the limit")
		}
	})
}

func FuzzIndexFiles(f *testing.F) {
	f.Add([]byte("kernel/a.ko: kernel/b.ko\nkernel/b.ko:\n"), []byte("alias a* a\n"), []byte("softdep a pre: b post: c\n"), []byte("a.alias=b\x00"))
	f.Fuzz(func(t *testing.T, dep, aliases, soft, info []byte) {
		x := newIndex("/nowhere/1.0")
		if x.parse(map[string][]byte{depFile: dep, aliasFile: aliases, softFile: soft, infoFile: info}) != nil {
			return
		}
		for _, m := range x.Modules()[:min(10, len(x.sorted))] {
			s, err := x.Resolve(m.Name, nil)
			if err != nil || !slices.ContainsFunc(s, func(s Step) bool { return s.Module == m }) {
				t.Errorf("%s: %v, %v", m.Name, s, err)
			}
		}
		x.Files(func(m *Module) (string, bool) { return m.Path, true })
	})
}
