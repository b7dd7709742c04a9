package remote

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/id"
	"ssi/internal/sys"
	"ssi/vproc/call"
)

func TestAsk(t *testing.T) {
	r := &call.Request{Nr: call.Kill, Args: [6]uint64{70000, 15}, Caller: call.Caller{Node: 1, PID: 5, TID: 6, Groups: []uint32{7}}}
	byFile := &call.Request{Nr: call.PidfdSendSignal, Args: [6]uint64{3, 15}}
	x := &target{pid: 70000, thread: true, boot: 1 << 60, number: 1<<64 - 1}
	for _, a := range []ask{{r: r}, {file: x, r: byFile}} {
		if got, err := decodeAsk(a.encode()); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%+v, %v, want %+v", got, err, a)
		}
	}
	for _, a := range []ask{{file: x, r: r}, {r: byFile}, {file: &target{pid: -1}, r: byFile}} {
		if got, err := decodeAsk(a.encode()); err == nil {
			t.Errorf("%+v", got)
		}
	}
}

func TestPlaces(t *testing.T) {
	want := []int{0, 3, 200}
	if got, err := decodePlaces(encodePlaces(want), 201); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := decodePlaces(encodePlaces(want), 200); err == nil {
		t.Errorf("%v", got)
	}
	if got, err := decodePlaces(nil, 5); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}

// What tells of another node is no reply, and the other way round.
func TestAnswer(t *testing.T) {
	for n := id.Node(1); n <= id.MaxNode; n++ {
		b := encodeMoved(n)
		if reply, to, err := decodeAnswer(b); err != nil || to != n || !reflect.DeepEqual(reply, call.Reply{}) {
			t.Errorf("node %d: %+v, %d, %v", n, reply, to, err)
		}
		if _, err := call.DecodeReply(b); err == nil {
			t.Errorf("node %d: it is a reply", n)
		}
	}
	want := call.Reply{Ret: 2, Errno: unix.EPERM, Out: []byte{1}}
	if reply, to, err := decodeAnswer(want.Append(nil)); err != nil || to != 0 || !reflect.DeepEqual(reply, want) {
		t.Errorf("%+v, %d, %v", reply, to, err)
	}
	for _, n := range []int64{0, -1, int64(id.MaxNode) + 1, 1<<16 + 2} {
		b := binary.AppendUvarint(binary.AppendVarint(nil, n), moved1)
		if _, to, err := decodeAnswer(b); err == nil {
			t.Errorf("%d becomes node %d", n, to)
		}
	}
	for _, b := range [][]byte{nil, {2}, append(encodeMoved(2), 0), binary.AppendUvarint([]byte{4}, moved1+1)} {
		if _, to, err := decodeAnswer(b); err == nil {
			t.Errorf("%x tells of node %d", b, to)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(encodeMoved(2))
	f.Add((&call.Reply{Ret: -1, Errno: 1, Out: []byte{1}}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		reply, to, err := decodeAnswer(b)
		if err != nil {
			return
		}
		again := reply.Append(nil)
		if to != 0 {
			again = encodeMoved(to)
		}
		if r, n, err := decodeAnswer(again); err != nil || n != to || to != 0 && !to.Valid() || !reflect.DeepEqual(r, reply) {
			t.Errorf("%+v of node %d becomes %+v of node %d, %v", reply, to, r, n, err)
		}
	})
}

func FuzzAsk(f *testing.F) {
	f.Add(ask{r: &call.Request{Nr: call.Kill, Args: [6]uint64{70000, 15}}}.encode())
	f.Add(ask{file: &target{pid: 1}, r: &call.Request{Nr: call.PidfdSendSignal}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAsk(b)
		if err != nil {
			return
		}
		if again, err := decodeAsk(a.encode()); err != nil || !reflect.DeepEqual(a, again) {
			t.Errorf("%+v becomes %+v, %v", a, again, err)
		}
	})
}

// Whatever another node claims, the kernel finds as much memory as it is told of.
func FuzzSystemCall(f *testing.F) {
	for _, r := range []*call.Request{
		{Nr: call.SchedGetaffinity, Args: [6]uint64{5, 1 << 40, 1}, OutLen: 8},
		{Nr: call.SchedSetaffinity, Args: [6]uint64{5, 2000, 1}, In: make([]byte, 1024)},
		{Nr: call.SchedGetattr, Args: [6]uint64{5, 1, 5000}, OutLen: 4096},
		{Nr: call.SchedSetattr, Args: [6]uint64{5, 1}, In: make([]byte, 48), OutLen: 4},
		{Nr: call.Prlimit64, Args: [6]uint64{5, 7, 1, 1}, In: make([]byte, 16), OutLen: 16},
		{Nr: call.RtSigqueueinfo, Args: [6]uint64{5, 40, 1}, In: make([]byte, 128)},
	} {
		f.Add(ask{r: r}.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAsk(b)
		if err != nil {
			return
		}
		c, err := systemCall(a.r, make([]byte, outRoom))
		if err != nil || manner(a.r) == refused {
			return
		}
		row, _ := a.r.Nr.Row()
		memory := map[int]sys.Memory{}
		for _, m := range c.Mem {
			memory[m.Arg] = m
		}
		for _, m := range row.Mem {
			if m.Dir == 0 || a.r.Args[m.Arg] == 0 {
				continue
			}
			room := len(memory[m.Arg].Data)
			if m.Layout == call.Attr && room != attrSize || m.Layout != call.Attr && m.SizeArg == 0 && room != m.Size {
				t.Errorf("%s: %d bytes for argument %d", row.Name, room, m.Arg)
			}
			if m.SizeArg == 0 {
				continue
			}
			told := c.Args[m.SizeArg] & 0xffffffff
			refused := a.r.Nr == call.SchedGetattr && told == 1<<32-1 || a.r.Nr == call.SchedGetaffinity && told%8 != 0
			cut := row.Nr == call.SchedSetaffinity && room == 1024 // the kernel has no longer masks
			if told > uint64(room) && !refused && !cut {
				t.Errorf("%s: %d bytes told, %d there", row.Name, told, room)
			}
		}
		if reply := replyOf(a.r, &c); len(reply.Out) > int(a.r.OutLen) {
			t.Errorf("%s: %d bytes come out of %d", row.Name, len(reply.Out), a.r.OutLen)
		}
	})
}

func FuzzTargets(f *testing.F) {
	f.Add(encodeTargets([]target{{pid: 1}, {pid: 70000, thread: true, number: 9}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if ts, err := decodeTargets(b); err == nil && !bytes.Equal(encodeTargets(ts), b) {
			t.Errorf("%x becomes %x", b, encodeTargets(ts))
		}
	})
}

func FuzzPlaces(f *testing.F) {
	f.Add([]byte{0, 1, 2}, 3)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		places, err := decodePlaces(b, n)
		for _, p := range places {
			if err == nil && (p < 0 || p >= n) {
				t.Errorf("place %d of %d", p, n)
			}
		}
	})
}
