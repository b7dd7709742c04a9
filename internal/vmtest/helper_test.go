package vmtest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const busybox = "/bin/busybox" // of Debian's busybox-static

// testInitrd packs the init of testdata with modules, in the order they are to
// be loaded, and the busybox of this computer if it has a static one.
func testInitrd(t *testing.T, k Kernel, modules ...string) string {
	t.Helper()
	dir := t.TempDir()
	init := filepath.Join(dir, "init")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", init, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build init: %v\n%s", err, out)
	}
	program, err := os.ReadFile(init)
	if err != nil {
		t.Fatal(err)
	}
	records := []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.Directory("modules", 0o755), cpio.Directory("bin", 0o755),
		cpio.StaticFile("init", string(program), 0o755),
	}
	for i, m := range modules {
		if b := module(t, k, m); b != nil {
			records = append(records, cpio.StaticFile(fmt.Sprintf("modules/%02d-%s.ko", i, m), string(b), 0o644))
		}
	}
	if b, err := os.ReadFile(busybox); err == nil {
		records = append(records, cpio.StaticFile("bin/busybox", string(b), 0o755))
	}
	var archive bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	if err := cpio.WriteRecords(w, records); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "initrd")
	if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// module is a module of a kernel, decompressed; nil if it is built in.
func module(t *testing.T, k Kernel, name string) []byte {
	t.Helper()
	var found string
	err := filepath.WalkDir(filepath.Join(k.Modules, "kernel"), func(p string, d fs.DirEntry, err error) error {
		if base, _, _ := strings.Cut(filepath.Base(p), ".ko"); base == name && !d.IsDir() {
			found = p
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == "" {
		builtin, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
		if err != nil || !strings.Contains(string(builtin), "/"+name+".ko") {
			t.Fatalf("kernel %s has no module %s", k.Version, name)
		}
		return nil
	}
	b, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(found, ".xz") {
		r, err := xz.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if b, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return b
}
