package dhcp

import (
	"container/heap"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
)

// number and address convert an IPv4 address.
func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// entry is an address that is not free.
type entry struct {
	lease   Lease
	offered bool      // not accepted yet: in memory only
	until   time.Time // when the address is free again
	index   int       // in table.queue
}

// table is the addresses that are not free: by address, by machine, and by the
// time of their end. A machine has at most one; declined ones belong to none.
type table struct {
	byAddr map[netip.Addr]*entry
	byMAC  map[MAC]*entry
	queue  queue
	ranges []*addrRange
}

func newTable() *table {
	return &table{byAddr: map[netip.Addr]*entry{}, byMAC: map[MAC]*entry{}}
}

// addRange returns a range of the table.
func (t *table) addRange(r Range) *addrRange {
	a := &addrRange{Range: r, taken: make([]uint64, (r.size()+63)/64), free: r.size()}
	t.ranges = append(t.ranges, a)
	return a
}

// add adds an entry; neither its address nor its machine may have one.
func (t *table) add(e *entry) {
	t.byAddr[e.lease.Addr] = e
	if !e.lease.Declined {
		t.byMAC[e.lease.MAC] = e
	}
	heap.Push(&t.queue, e)
	t.mark(e.lease.Addr, true)
}

// remove makes an address free.
func (t *table) remove(e *entry) {
	delete(t.byAddr, e.lease.Addr)
	if t.byMAC[e.lease.MAC] == e {
		delete(t.byMAC, e.lease.MAC)
	}
	heap.Remove(&t.queue, e.index)
	t.mark(e.lease.Addr, false)
}

// extend changes when the address becomes free.
func (t *table) extend(e *entry, until time.Time) {
	e.until = until
	heap.Fix(&t.queue, e.index)
}

// due returns an entry whose time is over, or nil.
func (t *table) due(now time.Time) *entry {
	if len(t.queue) > 0 && !t.queue[0].until.After(now) {
		return t.queue[0]
	}
	return nil
}

func (t *table) mark(a netip.Addr, taken bool) {
	for _, r := range t.ranges {
		if r.Contains(a) {
			r.mark(a, taken)
		}
	}
}

// addrRange knows which addresses of a range are free.
type addrRange struct {
	Range
	taken []uint64 // a bit each
	free  int
	next  int // where the search begins: an address that became free is used last
}

func (r *addrRange) mark(a netip.Addr, taken bool) {
	i := number(a) - number(r.First)
	word, bit := &r.taken[i/64], uint64(1)<<(i%64)
	switch {
	case taken && *word&bit == 0:
		*word |= bit
		r.free--
	case !taken && *word&bit != 0:
		*word &^= bit
		r.free++
	}
}

// pick returns a free address that may be given, beginning where the last search
// ended. It looks at MaxPool/64 words at most.
func (r *addrRange) pick(may func(netip.Addr) bool) (netip.Addr, bool) {
	if r.free == 0 {
		return netip.Addr{}, false
	}
	size := r.size()
	for scanned, i := 0, r.next; scanned < size+128; {
		if i >= size { // also the bits of the last word that stand for no address
			i = 0
		}
		left := ^r.taken[i/64] >> (i % 64)
		if left == 0 {
			step := 64 - i%64
			scanned, i = scanned+step, i/64*64+64
			continue
		}
		step := bits.TrailingZeros64(left)
		scanned, i = scanned+step+1, i+step
		if i >= size {
			continue
		}
		if a := address(number(r.First) + uint32(i)); may(a) {
			r.next = i + 1
			return a, true
		}
		i++
	}
	return netip.Addr{}, false
}

// queue is a heap of entries, the one that ends first on top.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].until.Before(q[j].until) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push and Pop are for package heap.
func (q *queue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}

// Pop removes the last element.
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}
