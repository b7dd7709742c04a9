package vmtest

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPrepareRoot(t *testing.T) {
	root := t.TempDir()
	if err := PrepareRoot(root, map[string]string{"etc/ssi/ssi.toml": "a"}); err == nil {
		t.Error("no error without /etc/shadow")
	}
	shadow := filepath.Join(root, "etc/shadow")
	if err := os.WriteFile(shadow, []byte("root:*:1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := PrepareRoot(root, map[string]string{"etc/ssi/ssi.toml": "b"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		shadow: "root::1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n", filepath.Join(root, "etc/ssi/ssi.toml"): "b",
	} {
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}
