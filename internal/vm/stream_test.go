package vm

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// pipePair is a socket pair with both ends ours.
func pipePair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	ours, file, err := socketPair("test")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := net.FileConn(file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// qemu is the far end of a stream port.
func qemu(t *testing.T, s *Segment, name string) (*plug, net.Conn) {
	t.Helper()
	ours, theirs := pipePair(t)
	p, err := s.plug(name, newStream(ours))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Close() })
	if err := theirs.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return p, theirs
}

func TestStream(t *testing.T) {
	b := newBench(t, 1, "a")
	p, far := qemu(t, b.Segment, "n1/0")
	b.send("a", "*", "in")
	got, err := readFrame(far)
	if err != nil || !bytes.Equal(got, frame("a", "*", "in")) {
		t.Fatalf("received %q, %v", got, err)
	}
	out := frame("b", "a", "out")
	if _, err := far.Write(append([]byte{0, 0, 0, byte(len(out))}, out...)); err != nil {
		t.Fatal(err)
	}
	b.expect("a", "out")
	// The machine goes: that is no failure, and its port is free.
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the port is free", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.ports["n1/0"].plug == nil })
	if err := p.unplug(); err != nil {
		t.Errorf("the end of a machine is a failure: %v", err)
	}
	qemu(t, b.Segment, "n1/0")
}

func TestStreamOutOfStep(t *testing.T) {
	b := newBench(t, 1)
	p, far := qemu(t, b.Segment, "n1/0")
	if _, err := far.Write([]byte{0xff, 0xff, 0xff, 0xff, 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(far); err != nil {
		t.Errorf("the port waits: %v", err)
	}
	if err := p.unplug(); err == nil || !strings.Contains(err.Error(), "port n1/0: a frame of 4294967295 bytes") {
		t.Errorf("unplug says %v", err)
	}
}

// A machine that does not read loses frames, holds nobody up and can be
// unplugged.
func TestStreamNotRead(t *testing.T) {
	b := newBench(t, 1, "a", "b")
	p, _ := qemu(t, b.Segment, "n1/0")
	a := b.ports["a"]
	for i := 0; b.Stats()["n1/0"].Dropped == 0; i++ {
		if i > 10*queueFrames {
			t.Fatal("the queue has no end")
		}
		b.forward(a, append(frame("a", "z", ""), make([]byte, 8000)...))
	}
	b.send("a", "b", "others go on")
	for {
		f, err := b.hosts["b"].Recv(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if string(f[frameMin:]) == "others go on" {
			break
		}
	}
	if err := p.unplug(); err != nil {
		t.Error(err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 'a', 'b', 0, 0, 0, 0, 0, 1, 0, 15})
	f.Add([]byte{0xff, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		s := newSegment("lan", 1)
		from := &port{name: "fuzz"}
		var again bytes.Buffer
		w := newStream(nil)
		w.w.Reset(&again)
		for {
			frame, err := readFrame(r)
			if err != nil {
				break
			}
			if len(frame) > frameMax {
				t.Fatalf("a frame of %d bytes", len(frame))
			}
			s.forward(from, frame)
			if err := w.send(frame); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(in, again.Bytes()) {
			t.Fatalf("%x was read as %x", in, again.Bytes())
		}
	})
}
