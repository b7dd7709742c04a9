package vm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// bench is a segment with hosts, each with an address of its own.
type bench struct {
	*Segment
	t     *testing.T
	hosts map[string]*Host
}

func newBench(t *testing.T, seed uint64, hosts ...string) *bench {
	t.Helper()
	b := &bench{newSegment("lan", seed), t, map[string]*Host{}}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range hosts {
		b.join(name)
	}
	return b
}

func (b *bench) join(name string) {
	b.t.Helper()
	h, err := b.Host(name)
	if err != nil {
		b.t.Fatal(err)
	}
	b.hosts[name] = h
}

// address is the hardware address of a host with a name of one letter; "*" is
// everybody.
func address(name string) hardware {
	if name == "*" {
		return hardware{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	return hardware{2, 0, 0, 0, 0, name[0]}
}

func frame(from, to, text string) []byte {
	src, dst := address(from), address(to)
	return slices.Concat(dst[:], src[:], []byte{0x88, 0xb5}, []byte(text))
}

// send sends a frame and waits until it is forwarded.
func (b *bench) send(from, to, text string) {
	b.t.Helper()
	before := b.Stats()[from].Sent
	if err := b.hosts[from].Send(within(b.t), frame(from, to, text)); err != nil {
		b.t.Fatal(err)
	}
	await(b.t, "the frame is forwarded", func() bool { return b.Stats()[from].Sent > before })
}

// expect waits for exactly this frame.
func (b *bench) expect(host, text string) {
	b.t.Helper()
	f, err := b.hosts[host].Recv(within(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	if got := string(f[frameMin:]); got != text {
		b.t.Fatalf("%s received %q, want %q", host, got, text)
	}
}

func (b *bench) fault(from, to string, f Fault) {
	b.t.Helper()
	if err := b.SetFault(from, to, f); err != nil {
		b.t.Fatal(err)
	}
}

func TestLearning(t *testing.T) {
	b := newBench(t, 1, "a", "b", "c")
	b.send("a", "b", "unknown") // everywhere
	b.expect("b", "unknown")
	b.expect("c", "unknown")
	b.send("b", "a", "answer") // a is known
	b.send("a", "b", "known")  // so is b
	b.send("a", "*", "all")
	b.expect("a", "answer")
	b.expect("b", "known")
	b.expect("b", "all")
	b.expect("c", "all") // and nothing before it

	// The address of a moves to c.
	if err := b.hosts["c"].Send(within(t), frame("a", "b", "moved")); err != nil {
		t.Fatal(err)
	}
	b.expect("b", "moved")
	b.send("b", "a", "follows")
	b.expect("c", "follows")

	// A cable that is pulled is forgotten.
	if err := b.hosts["c"].Close(); err != nil {
		t.Fatal(err)
	}
	b.send("b", "a", "searched")
	b.expect("a", "searched")
	b.join("c")
	b.send("b", "*", "again")
	b.expect("c", "again")
}

func TestInvalidFrames(t *testing.T) {
	b := newBench(t, 1, "a", "b")
	fromGroup := frame("a", "b", "x")
	fromGroup[hardwareLen] |= groupBit
	for _, f := range [][]byte{nil, make([]byte, frameMin-1), make([]byte, frameMax+1), fromGroup} {
		if err := b.hosts["a"].Send(within(t), f); err != nil {
			t.Fatal(err)
		}
	}
	b.send("a", "b", "valid")
	b.expect("b", "valid")
	if s := b.Stats()["a"]; s.Invalid != 4 || s.Sent != 1 {
		t.Errorf("counted %+v", s)
	}
}

// Senders without number do not make the table grow, nor a known one unknown.
func TestTableIsBounded(t *testing.T) {
	b := newBench(t, 1, "a", "b", "c")
	b.send("b", "a", "hello")
	b.expect("a", "hello")
	b.expect("c", "hello")
	from := &port{name: "flood"}
	for i := range 2 * maxTable {
		f := frame("x", "x", "")
		binary.BigEndian.PutUint32(f[8:], uint32(i))
		b.forward(from, f)
	}
	if n := len(b.table); n > maxTable {
		t.Errorf("the table has %d addresses, more than %d", n, maxTable)
	}
	before := b.Stats()["c"].Received
	b.send("a", "b", "known")
	if after := b.Stats()["c"].Received; after != before {
		t.Errorf("a frame to a known address went elsewhere")
	}
}

func TestPorts(t *testing.T) {
	b := newBench(t, 1, "a")
	if _, err := b.Host("a"); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second host in a port: %v", err)
	}
	if err := b.SetFault("a", "nobody", Fault{Cut: true}); err == nil || !strings.Contains(err.Error(), `no port "nobody"`) {
		t.Errorf("fault of a port that is not there: %v", err)
	}
	for i := range 2 * MaxPorts {
		if err := b.addPort(fmt.Sprint(i)); (err == nil) != (i < MaxPorts-1) {
			t.Fatalf("port %d: %v", i+2, err)
		}
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Host("late"); err == nil {
		t.Error("a host joined a closed segment")
	}
	if err := b.hosts["a"].Send(within(t), frame("a", "b", "")); err == nil {
		t.Error("a closed host sends")
	}
	if _, err := b.hosts["a"].Recv(within(t)); err == nil {
		t.Error("a closed host receives")
	}
}

func TestCutOneWay(t *testing.T) {
	b := newBench(t, 1, "a", "b", "c")
	b.fault("a", "b", Fault{Cut: true})
	b.send("a", "*", "lost to b")
	b.expect("c", "lost to b")
	b.send("b", "a", "the other way")
	b.expect("a", "the other way")
	if s := b.Stats()["b"]; s.Lost != 1 || s.Received != 0 {
		t.Errorf("b counted %+v", s)
	}
	b.fault("a", "b", Fault{})
	b.send("a", "b", "healed")
	b.expect("b", "healed")
	// Only what b sends is cut, to everybody.
	b.fault("b", "", Fault{Cut: true})
	b.send("b", "*", "into the void")
	b.send("a", "b", "still hears")
	b.expect("b", "still hears")
	b.ClearFaults()
	b.send("b", "*", "back")
	b.expect("a", "back")
	b.expect("c", "back")
}

// Which frames a link loses depends on the seed alone, and their share is what
// was asked for.
func TestLoss(t *testing.T) {
	const frames = 1000
	lost := func(seed uint64, others bool) string {
		f := newFaults(seed)
		if err := errorsOf(f.put(pair{"a", ""}, Fault{Loss: 0.2}), f.put(pair{"", "b"}, Fault{Loss: 0.25})); err != nil {
			t.Fatal(err)
		}
		var pattern strings.Builder
		for range frames {
			if others {
				f.decide("a", "c")
			}
			_, gone := f.decide("a", "b")
			fmt.Fprintf(&pattern, "%t", gone)
		}
		return pattern.String()
	}
	first := lost(1, false)
	if first != lost(1, true) {
		t.Error("the same seed loses other frames when there is other traffic")
	}
	if first == lost(2, false) {
		t.Error("two seeds lose the same frames")
	}
	// 1 - 0.8 * 0.75 = 0.4; six standard deviations of 1000 draws are 0.093
	if share := float64(strings.Count(first, "true")) / frames; share < 0.3 || share > 0.5 {
		t.Errorf("%v of the frames were lost, want about 0.4", share)
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestBadFaults(t *testing.T) {
	nan := 0.0
	nan /= nan
	f := newFaults(1)
	for _, bad := range []Fault{{Loss: -0.1}, {Loss: 1.1}, {Loss: nan}, {Delay: -1}, {Delay: MaxDelay + 1}, {Jitter: -1}, {Jitter: MaxDelay + 1}} {
		if err := f.put(pair{"a", "b"}, bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	for i := range 2 * maxFaults {
		if err := f.put(pair{fmt.Sprint(i), ""}, Fault{Cut: true}); (err == nil) != (i < maxFaults) {
			t.Fatalf("fault %d: %v", i+1, err)
		}
	}
}

func TestDelay(t *testing.T) {
	b := newBench(t, 1, "a", "b")
	b.fault("a", "", Fault{Delay: 30 * time.Millisecond})
	b.fault("", "b", Fault{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond})
	sent := time.Now()
	b.send("a", "b", "slow")
	b.expect("b", "slow")
	if took := time.Since(sent); took < 50*time.Millisecond {
		t.Errorf("the frame arrived after %v, too early", took)
	}
}

// A host that nobody reads keeps the last frames, and sender and segment go on.
func TestLazyHost(t *testing.T) {
	b := newBench(t, 1, "a", "b")
	for i := range 3 * hostFrames {
		b.send("a", "b", fmt.Sprint(i))
	}
	last := fmt.Sprint(3*hostFrames - 1)
	for n := 1; ; n++ {
		f, err := b.hosts["b"].Recv(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if string(f[frameMin:]) == last {
			return
		}
		if n > 2*hostFrames {
			t.Fatal("the host held more frames than it may")
		}
	}
}

func TestCapture(t *testing.T) {
	b := newBench(t, 1, "a", "b")
	path := filepath.Join(t.TempDir(), "lan.pcap")
	if err := b.Capture(path); err != nil {
		t.Fatal(err)
	}
	if err := b.Capture(path + "2"); err == nil {
		t.Error("a segment is captured twice")
	}
	b.fault("", "", Fault{Cut: true})
	long := strings.Repeat("x", captureSnap)
	b.send("a", "b", "lost, and seen")
	b.send("b", "a", long)
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	order := binary.NativeEndian
	if order.Uint32(got) != 0xa1b23c4d || order.Uint32(got[20:]) != 1 {
		t.Fatalf("header % x", got[:24])
	}
	got = got[24:]
	for _, want := range [][]byte{frame("a", "b", "lost, and seen"), frame("b", "a", long)} {
		if age := time.Since(time.Unix(int64(order.Uint32(got)), int64(order.Uint32(got[4:])))); age < 0 || age > patience {
			t.Errorf("a frame is %v old", age)
		}
		kept := min(len(want), captureSnap)
		if n := order.Uint32(got[8:]); n != uint32(kept) || order.Uint32(got[12:]) != uint32(len(want)) {
			t.Fatalf("a frame of %d bytes has the header % x", len(want), got[:16])
		}
		if !bytes.Equal(got[16:16+kept], want[:kept]) {
			t.Errorf("captured %q", got[16:16+kept])
		}
		got = got[16+kept:]
	}
	if len(got) != 0 {
		t.Errorf("%d bytes too many", len(got))
	}
}

func BenchmarkForward(b *testing.B) {
	s := newSegment("lan", 1)
	from, to := &port{name: "a"}, &port{name: "b", plug: &plug{queue: newQueue()}}
	s.ports["a"], s.ports["b"] = from, to
	f := append(frame("a", "b", ""), make([]byte, 1500)...)
	s.table[address("b")] = to
	b.SetBytes(int64(len(f)))
	for b.Loop() {
		s.forward(from, f)
		to.plug.queue.Take(time.Now())
	}
}

// BenchmarkStream is the way of a frame between two machines but for QEMU.
func BenchmarkStream(b *testing.B) {
	s := newSegment("lan", 1)
	defer s.close()
	var ends []*stream
	for _, name := range []string{"a", "b"} {
		ours, theirs := pipePair(b)
		if _, err := s.plug(name, newStream(ours)); err != nil {
			b.Fatal(err)
		}
		ends = append(ends, newStream(theirs))
	}
	go func() {
		f := append(frame("a", "b", ""), make([]byte, 1500)...)
		for ends[0].send(f) == nil {
		}
	}()
	defer ends[0].Close()
	b.SetBytes(1514)
	for b.Loop() {
		if _, err := ends[1].receive(); err != nil {
			b.Fatal(err)
		}
	}
}
