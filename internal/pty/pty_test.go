package pty

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTerminal(t *testing.T) {
	master, slave, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	if !IsTerminal(slave) {
		t.Error("the slave is no terminal")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if IsTerminal(r) || Foreground(slave) {
		t.Error("a pipe is a terminal, or a foreign terminal is ours")
	}
	if err := SetSize(master, 33, 111); err != nil {
		t.Fatal(err)
	}
	if rows, cols, err := Size(slave); err != nil || rows != 33 || cols != 111 {
		t.Errorf("size %dx%d, %v", rows, cols, err)
	}
	modes, err := Modes(slave)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetModes(slave, Raw(*modes)); err != nil {
		t.Fatal(err)
	}
	if modes.Lflag&unix.ICANON == 0 {
		t.Error("Raw changed its argument")
	}
	in := []byte("\x03\r\n\x1a\xff")
	if _, err := master.Write(in); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16)
	n, err := slave.Read(got)
	if err != nil || !bytes.Equal(got[:n], in) {
		t.Errorf("raw terminal passed %q, %v", got[:n], err)
	}
	if err := master.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Errorf("the master has no deadlines: %v", err)
	}
}
