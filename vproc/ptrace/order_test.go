package ptrace

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOrder(t *testing.T) {
	want := Order{Node: 7, Path: []byte("/bin/\xff"), Arg0: []byte("-sh")}
	b, err := want.script("/usr/bin/ssi")
	must(t, err)
	if !bytes.HasPrefix(b, []byte("#!/usr/bin/ssi rexec-surrogate\n")) {
		t.Errorf("%q", b)
	}
	got, err := decodeOrder(b)
	must(t, err)
	if got.Node != 7 || string(got.Path) != "/bin/\xff" || string(got.Arg0) != "-sh" {
		t.Errorf("%+v", got)
	}
	for _, exe := range []string{"/with space", "/" + strings.Repeat("x", maxHead)} {
		if _, err := want.script(exe); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("%s: %v", exe, err)
		}
	}
	for _, name := range []string{"", "/dev/fd/", "/dev/fd/-1", "/dev/fd/0", "/dev/fd/9999", "/dev/fd/3x", "/dev/fd/99999999999", "3"} {
		if _, err := TakeOrder(name); !errors.Is(err, errOrder) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzDecodeOrder(f *testing.F) {
	b, err := (&Order{Node: 7, Path: []byte("/bin/sh"), Arg0: []byte("-sh")}).script("/usr/bin/ssi")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("#!\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decodeOrder(b)
		if err != nil {
			return
		}
		if !o.Node.Valid() || len(o.Path) == 0 || bytes.IndexByte(o.Path, 0) >= 0 {
			t.Errorf("%+v", o)
		}
		again, err := o.script("/x")
		must(t, err)
		if o2, err := decodeOrder(again); err != nil || !bytes.Equal(o2.Path, o.Path) || !bytes.Equal(o2.Arg0, o.Arg0) || o2.Node != o.Node {
			t.Errorf("%+v is %+v after it, %v", o, o2, err)
		}
	})
}

func FuzzDecodeQuestion(f *testing.F) {
	b, err := json.Marshal(&question{Path: []byte("a"), Dir: []byte("/"), UID: 1, Groups: []uint32{2}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeQuestion(b); err == nil && (len(q.Path) == 0 || q.Dir[0] != '/' || bytes.IndexByte(q.Path, 0) >= 0) {
			t.Errorf("%+v", q)
		}
	})
}

func TestCheck(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it asks in the name of others")
	}
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o755))
	write := func(name, content string, mode os.FileMode) {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), mode))
		must(t, os.Chmod(filepath.Join(dir, name), mode))
	}
	write("script", "#!\t./inner x\n", 0o755)
	write("inner", "#!/bin/sh", 0o750)
	write("unreadable", "#!/bin/sh\n", 0o711)
	write("nothing", "#! \n", 0o755)
	write("foreign", "\x7fELF"+strings.Repeat("\xee", 60), 0o755)
	for _, c := range []struct {
		path, dir string
		uid       uint32
		groups    []uint32
		want      unix.Errno
	}{
		{"/bin/sh", dir, 0, nil, 0},
		{"/bin/sh", dir, 1234, nil, 0},
		{"script", dir, 0, nil, 0},
		{"script", dir, 1234, nil, unix.EACCES},
		{"script", dir, 1234, []uint32{0}, 0},
		{"unreadable", dir, 1234, nil, 0},
		{"nothing", dir, 0, nil, unix.ENOEXEC},
		{"foreign", dir, 0, nil, unix.ENOEXEC},
		{"script", "/", 0, nil, unix.ENOENT},
		{"/bin/sh", dir + "/no", 0, nil, unix.ENOENT},
		{"/bin/sh", dir + "/inner", 0, nil, unix.ENOTDIR},
	} {
		if c.want == unix.ENOEXEC && c.path == "foreign" && othersRegistered() {
			continue
		}
		q := question{Path: []byte(c.path), Dir: []byte(c.dir), UID: c.uid, GID: c.uid, Groups: c.groups}
		if e := q.check(); e != c.want {
			t.Errorf("%s in %s as user %d: %v, want %v", c.path, c.dir, c.uid, e, c.want)
		}
	}
}
