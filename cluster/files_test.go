package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ssi/internal/id"
)

func TestIncarnation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", fileIncarnation)
	first, err := incarnation(path)
	if err != nil || first == 0 {
		t.Fatalf("%d, %v", first, err)
	}
	if again, err := incarnation(path); again != first || err != nil {
		t.Errorf("a restart of the daemon: %d, %v; it was %d", again, err, first)
	}
	if err := saveIncarnation(path, first+7); err != nil {
		t.Fatal(err)
	}
	if got, err := incarnation(path); got != first+7 || err != nil {
		t.Errorf("saved %d, got %d, %v", first+7, got, err)
	}
	for _, text := range []string{"", "garbage", "0", "-1"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := incarnation(path); err != nil || got <= first {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := incarnation(path); err == nil {
		t.Error("a directory is no number")
	}
}

func TestReadIdentity(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	for _, text := range []string{"", "{", "{}", `{"id":"x"}`, `{"id":"x","node":128}`, `{"node":1}`} {
		if err := os.WriteFile(filepath.Join(dir, fileCluster), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := ReadIdentity(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "join anew") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestWriteJSON(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.json")
	want := peerFile{Addrs: map[id.Node]string{2: "a:1"}}
	for _, mode := range []fs.FileMode{0o600, 0o644} {
		if err := writeJSON(path, mode, want); err != nil {
			t.Fatal(err)
		}
		var got peerFile
		if err := readJSON(path, &got); err != nil || got.Addrs[2] != "a:1" {
			t.Errorf("read %+v, %v", got, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	if err := writeJSON(path, 0o644, func() {}); err == nil {
		t.Error("a function was written")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(path, 0o644, want); err == nil {
		t.Error("a file replaced a directory")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".tmp-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFoundingKeepsSecrets(t *testing.T) {
	f := founding{CAKey: []byte("topsecret")}
	if s := fmt.Sprintf("%v %+v %#v %s", f, f, f, f); strings.Contains(s, "topsecret") || strings.Contains(s, "116") {
		t.Errorf("printed: %s", s)
	}
}

func TestSecretKey(t *testing.T) {
	for key, want := range map[string]bool{
		keyCAKey: true, "/sys/secret": true, "/sys/secret/x/y": true,
		"/sys/secrets": false, "/sys": false, "/a/sys/secret": false, "": false,
	} {
		if SecretKey(key) != want {
			t.Errorf("SecretKey(%q) = %v", key, !want)
		}
	}
}
