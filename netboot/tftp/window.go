package tftp

// window says which blocks to send: the pure part of a transfer. Blocks are
// counted from 1 without wrapping; block 0 is the acknowledgement of the options.
type window struct {
	last  int64 // the block that ends the file: it is shorter than the others
	size  int64 // blocks in flight
	acked int64 // the highest that the client has, with all before; -1 before the options are acknowledged
	sent  int64 // the highest that was sent
}

// newWindow is for a file of size bytes. A file that is a multiple of the block
// ends with an empty one (RFC 1350).
func newWindow(size, block int64, blocks int, options bool) window {
	w := window{last: size/block + 1, size: int64(max(blocks, 1))}
	if options {
		w.acked, w.sent = -1, 0
	}
	return w
}

// negotiating reports whether the options are not yet acknowledged.
func (w *window) negotiating() bool { return w.acked < 0 }

// done reports whether the client has everything.
func (w *window) done() bool { return w.acked >= w.last }

// next is the block to send now, or false when the window is full.
func (w *window) next() (int64, bool) {
	if w.negotiating() || w.sent >= min(w.acked+w.size, w.last) {
		return 0, false
	}
	w.sent++
	return w.sent, true
}

// ack takes an acknowledgement as it is on the wire, modulo 2^16, and reports
// whether it brought news. A duplicate or one that cannot be is ignored: to
// answer a duplicate would double every block that follows (the Sorcerer's
// Apprentice, RFC 1123 4.2.3.1).
func (w *window) ack(wire uint16) bool {
	if w.negotiating() {
		if wire != 0 {
			return false
		}
		w.acked = 0
		return true
	}
	block := w.acked + int64(wire-uint16(w.acked)) // the next with these 16 bits
	if block == w.acked || block > w.sent {
		return false
	}
	w.acked = block
	// RFC 7440: the client acknowledges less than the window when it misses what
	// comes after; the next window begins there.
	if w.size > 1 {
		w.sent = block
	}
	return true
}

// again makes everything that is not acknowledged be sent once more.
func (w *window) again() { w.sent = max(w.acked, 0) }
