package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
)

// rrq encodes a request; fields are options and values.
func rrq(op uint16, name, mode string, fields ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, op)
	for _, f := range append([]string{name, mode}, fields...) {
		b = append(append(b, f...), 0)
	}
	return b
}

func TestParse(t *testing.T) {
	for want, b := range map[request][]byte{
		{name: "a"}: rrq(1, "a", "octet"),
		{name: "a", block: 1468, tsize: true, window: 4}: rrq(1, "a", "OCTET", "BLKSIZE", "1468", "tsize", "0", "windowsize", "4"),
		{name: "a", window: MaxWindow}:                   rrq(1, "a", "octet", "windowsize", "65535"),
		{name: "b"}:                                      rrq(1, "b", "octet", "blksize", "7", "x", "y", "tsize", "-1", "windowsize", "0", "odd"),
		{name: "c"}:                                      append(rrq(1, "c", "octet"), "padding"...),
		{name: "d"}:                                      rrq(1, "d", "octet", "blksize", "65465"),
	} {
		if got, err := parse(b); got != want || err != nil {
			t.Errorf("%q: %+v, %v; want %+v", b, got, err, want)
		}
	}
	for _, c := range []struct {
		b    []byte
		code uint16
	}{
		{rrq(2, "a", "octet"), codeAccess},
		{rrq(1, "a", "netascii"), codeIllegal},
		{rrq(1, "a", "mail"), codeIllegal},
		{rrq(1, "", "octet"), codeNotFound},
		{rrq(1, strings.Repeat("x", MaxName+1), "octet"), codeNotFound},
		{[]byte("\x00\x01no end"), codeIllegal},
		{[]byte("\x00\x01name\x00octet"), codeIllegal},
	} {
		_, err := parse(c.b)
		var r refusal
		if !errors.As(err, &r) || r.code != c.code {
			t.Errorf("%.60q: %v, want code %d", c.b, err, c.code)
		}
	}
	for _, b := range [][]byte{nil, {0}, {0, 1}, {0, 1, 0}, {0, 3, 0, 1}, {0, 4, 0, 1}, {0, 5, 0, 0, 0}, {0, 6, 0, 0}, {1, 1, 0, 0}, rrq(1, strings.Repeat("x", MaxRequest), "octet")} {
		if _, err := parse(b); !errors.Is(err, errNoRequest) {
			t.Errorf("%.60q: %v", b, err)
		}
	}
}

// client is a model of a client that acknowledges each window.
type client struct {
	have   int64
	window int64
	since  int64 // blocks since the last acknowledgement
}

// take takes a block and returns what it acknowledges, if it does.
func (c *client) take(block, last int64) (int64, bool) {
	if block != c.have+1 {
		// The last one again, so that the server knows where to go on (RFC 7440);
		// in lockstep only if it came again.
		c.since = 0
		return c.have, c.window > 1 || block == c.have
	}
	c.have++
	c.since++
	if c.since < c.window && c.have < last {
		return 0, false
	}
	c.since = 0
	return c.have, true
}

// Every block arrives whatever is lost, and the numbers may wrap.
func TestWindow(t *testing.T) {
	for _, blocks := range []int{1, 4, MaxWindow} {
		for _, size := range []int64{0, 1, 512, 3000 * 512} {
			for loss := range 4 {
				transferAll(t, size, blocks, uint32(loss))
			}
		}
		transferAll(t, 70000*512, blocks, 1)
	}
}

// transferAll loses loss of 20 datagrams.
func transferAll(t *testing.T, size int64, blocks int, loss uint32) {
	w := newWindow(size, 512, blocks, true)
	c := client{window: w.size}
	seed := loss
	lost := func() bool {
		seed = seed*1664525 + 1013904223
		return seed>>16%20 < loss
	}
	w.ack(0)
	for steps := 0; !w.done(); steps++ {
		if steps > 300000 {
			t.Fatalf("window %d, size %d, loss %d: no end at %+v, %+v", blocks, size, loss, w, c)
		}
		var acks []int64
		for n, ok := w.next(); ok; n, ok = w.next() {
			if n > w.acked+w.size || n > w.last {
				t.Fatalf("block %d is sent at %+v", n, w)
			}
			if lost() {
				continue
			}
			if a, ok := c.take(n, w.last); ok && !lost() {
				acks = append(acks, a)
			}
		}
		news := false
		for _, a := range acks {
			news = w.ack(uint16(a)) || news
		}
		if !news {
			w.again()
		}
	}
	if c.have != size/512+1 {
		t.Errorf("window %d, size %d, loss %d: the client has %d blocks", blocks, size, loss, c.have)
	}
}

// An answer that comes twice does not make blocks come twice.
func TestApprentice(t *testing.T) {
	w := newWindow(5000, 512, 1, false)
	if n, ok := w.next(); n != 1 || !ok {
		t.Fatal(n, ok)
	}
	if !w.ack(1) || w.ack(1) || w.ack(0) || w.ack(2) || w.ack(60000) {
		t.Error("only the first acknowledgement of block 1 is news")
	}
	if n, ok := w.next(); n != 2 || !ok {
		t.Error(n, ok)
	}
	if _, ok := w.next(); ok {
		t.Error("a block beyond the window")
	}
}

func FuzzPackets(f *testing.F) {
	f.Add(rrq(1, "a", "octet", "blksize", "1468", "tsize", "0"), uint16(3))
	f.Add([]byte("\x00\x04\x00\x01"), uint16(0))
	f.Add([]byte("\x00\x05\x00\x08User aborted"), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		if r, ok := parseReply(b); ok && len(r.text) > maxErrorMessage {
			t.Fatal("long text")
		}
		r, err := parse(b)
		if err != nil {
			var no refusal
			if errors.As(err, &no) && len(encodeError(no.code, no.text)) > maxErrorMessage+5 {
				t.Fatal("long refusal")
			}
			return
		}
		if r.name == "" || len(r.name) > MaxName || strings.Contains(r.name, "\x00") || r.block > MaxBlock || r.block < 0 || r.window > MaxWindow {
			t.Fatalf("%+v", r)
		}
		oack := r.oack(int64(size))
		if r.options() != (len(oack) > 2) || bytes.Count(oack, []byte{0})%2 != len(oack[2:])*0+bytes.Count(oack[:2], []byte{0})%2 {
			t.Fatalf("%q", oack)
		}
	})
}

// FuzzWindow: whatever a client acknowledges, no block outside of the window is
// sent, and what is acknowledged never shrinks.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, uint32(5000), byte(4))
	f.Fuzz(func(t *testing.T, acks []byte, size uint32, blocks byte) {
		w := newWindow(int64(size), 512, int(min(blocks, MaxWindow)), true)
		for pair := range slices.Chunk(acks, 2) {
			for n, ok := w.next(); ok; n, ok = w.next() {
				if n < 1 || n > w.last || n > max(w.acked, 0)+w.size {
					t.Fatalf("block %d at %+v", n, w)
				}
			}
			was := w.acked
			n := uint16(pair[0])
			if len(pair) > 1 {
				n |= uint16(pair[1]) << 8
			}
			w.ack(n)
			if w.acked < was || w.acked > max(w.sent, 0) || w.acked > w.last {
				t.Fatalf("%+v after %d", w, n)
			}
			if n%7 == 0 {
				w.again()
			}
		}
	})
}
