package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLevelList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	var l levelList
	now := time.Now()
	look := func(changed bool, want string) {
		t.Helper()
		now = now.Add(loadLevelAge)
		if got := l.look(path, now); got != changed || string(l.file.GetContent()) != want || l.file.GetName() != "loadlevellist" {
			t.Errorf("changed %v, %.20q; want %v, %.20q", got, l.file.GetContent(), changed, want)
		}
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look(true, "")
	look(false, "")
	write([]byte("make\ngcc\n"))
	if l.look(path, now) {
		t.Error("it was read again at once")
	}
	look(true, "make\ngcc\n")
	look(false, "make\ngcc\n")
	long := bytes.Repeat([]byte("x"), maxLoadLevel)
	write(append(long, 'y'))
	look(true, string(long))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look(true, "")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	look(false, "")
}
