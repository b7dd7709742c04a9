package delay

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// collect takes what is due, from a time on until nothing is held.
func collect(l *Line, at time.Time) (order []byte) {
	for l.Busy() {
		f, wait, _ := l.Take(at)
		if wait > 0 {
			at = at.Add(wait)
			continue
		}
		order = append(order, f...)
	}
	return order
}

func TestOrder(t *testing.T) {
	l, now := New(8, 8), time.Unix(1000, 0)
	for i, due := range []int{5, 1, 5, 0} {
		if !l.Put([]byte{byte(i)}, now.Add(time.Duration(due)*time.Second)) {
			t.Fatal("an empty line drops")
		}
	}
	if f, wait, end := l.Take(now.Add(-time.Second)); f != nil || wait != time.Second || end {
		t.Errorf("before the first is due: %v, %v, %v", f, wait, end)
	}
	if got := collect(l, now); !bytes.Equal(got, []byte{3, 1, 0, 2}) {
		t.Errorf("the frames came in the order %v", got)
	}
}

func TestLimits(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct{ frames, bytes, size, want int }{
		{3, 100, 1, 3}, {100, 10, 4, 2}, {100, 8, 4, 2}, {4, 0, 0, 4},
	} {
		l := New(c.frames, c.bytes)
		fits := func() (n int) {
			for l.Put(make([]byte, c.size), now) {
				n++
			}
			return n
		}
		if n := fits(); n != c.want {
			t.Errorf("%+v: %d frames", c, n)
		}
		collect(l, now)
		if n := fits(); n != c.want {
			t.Errorf("%+v: %d frames when it is empty again", c, n)
		}
	}
}

func TestClose(t *testing.T) {
	for _, flush := range []bool{true, false} {
		l := New(8, 8)
		sent, done := make(chan byte, 8), make(chan error)
		send := func(f []byte) error { sent <- f[0]; return nil }
		go func() { done <- l.Run(send, func() error { return nil }) }()
		l.Put([]byte{1}, time.Now().Add(-time.Second))
		if got := <-sent; got != 1 {
			t.Errorf("sent %d", got)
		}
		l.Put([]byte{3}, time.Now().Add(time.Hour))
		l.Put([]byte{2}, time.Now().Add(time.Minute))
		l.Close(flush)
		if err := <-done; err != nil {
			t.Error(err)
		}
		close(sent)
		var rest []byte
		for b := range sent {
			rest = append(rest, b)
		}
		if want := map[bool][]byte{true: {2, 3}}[flush]; !bytes.Equal(rest, want) {
			t.Errorf("flush %v: sent %v at the end", flush, rest)
		}
		if l.Put(nil, time.Now()) || l.Busy() {
			t.Error("a closed line takes frames")
		}
	}
}

// The first error of either function ends Run.
func TestRunFails(t *testing.T) {
	bad := errors.New("bad")
	fail, works := func() error { return bad }, func() error { return nil }
	l := New(8, 8)
	if err := l.Run(func([]byte) error { return nil }, fail); !errors.Is(err, bad) {
		t.Errorf("idle failed: %v", err)
	}
	l.Put([]byte{1}, time.Now())
	if err := l.Run(func([]byte) error { return bad }, works); !errors.Is(err, bad) {
		t.Errorf("send failed: %v", err)
	}
}

func FuzzOrder(f *testing.F) {
	f.Add([]byte{5, 1, 5, 0})
	f.Fuzz(func(t *testing.T, dues []byte) {
		l, now := New(256, 256), time.Unix(1000, 0)
		taken := 0
		for i, due := range dues {
			if l.Put([]byte{due, byte(i)}, now.Add(time.Duration(due)*time.Second)) {
				taken++
			}
		}
		got := collect(l, now)
		if len(got) != 2*taken || taken != min(len(dues), 128) {
			t.Fatalf("of %d frames %d were taken, and %d bytes came", len(dues), taken, len(got))
		}
		for i := 2; i < len(got); i += 2 {
			if a, b := got[i-2:i], got[i:i+2]; bytes.Compare(a, b) >= 0 {
				t.Fatalf("%v came before %v", a, b)
			}
		}
	})
}
