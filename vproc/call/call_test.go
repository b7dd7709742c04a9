package call

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// numbers reads the numbers of the system calls from golang.org/x/sys, which has
// them from the kernel's tables.
func numbers(t *testing.T, arch string) map[string]int {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+arch+".go"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, m := range regexp.MustCompile(`SYS_([A-Z0-9_]+)\s+=\s+(\d+)`).FindAllStringSubmatch(string(b), -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		all[strings.ToLower(m[1])] = n
	}
	return all
}

func TestNumbers(t *testing.T) {
	x64, i386 := numbers(t, "amd64"), numbers(t, "386")
	for _, c := range Table() {
		if c.Nr >= SsiInfo {
			if c.X64 < ClusterBase || c.X64 != c.I386 {
				t.Errorf("%s: %d and %d", c.Name, c.X64, c.I386)
			}
			continue
		}
		if n, ok := x64[c.Name]; c.X64 >= 0 && (!ok || n != c.X64) {
			t.Errorf("%s on x86-64 is %d, the table says %d", c.Name, n, c.X64)
		}
		if n, ok := i386[c.Name]; c.I386 >= 0 && (!ok || n != c.I386) {
			t.Errorf("%s on i386 is %d, the table says %d", c.Name, n, c.I386)
		}
	}
	for _, all := range []map[string]int{x64, i386} {
		for name, n := range all {
			if n >= ClusterBase {
				t.Errorf("%s is %d: the kernel's numbers have reached ours", name, n)
			}
		}
	}
}

// Every row can be executed from what it says, and no number is there twice.
func TestTable(t *testing.T) {
	seen := map[[2]int]string{}
	last := None
	for _, c := range Table() {
		if c.Nr != last && c.Nr != last+1 {
			t.Errorf("%s is not in the order of the names", c.Name)
		}
		last = c.Nr
		if c.Name == "" || c.Class == 0 {
			t.Errorf("%s: incomplete", c.Name)
		}
		for arch, n := range []int{c.X64, c.I386} {
			if n < 0 {
				continue
			}
			if other := seen[[2]int{arch, n}]; other != "" {
				t.Errorf("%s has the number of %s", c.Name, other)
			}
			seen[[2]int{arch, n}] = c.Name
		}
		for _, m := range c.Mem {
			if m.Dir != 0 && m.Size == 0 && m.Layout != Attr || m.SizeArg == m.Arg && m.Arg > 0 {
				t.Errorf("%s: memory %+v", c.Name, m)
			}
		}
	}
	if last != Migrate {
		t.Errorf("the last row is %s", last)
	}
	if s := Nr(200).String(); s != "unknown call" {
		t.Errorf("%q", s)
	}
}

func TestPieces(t *testing.T) {
	row := func(n Nr) *Call {
		c, ok := n.Row()
		if !ok {
			t.Fatal(n)
		}
		return &c
	}
	const ptr = 0xdead000
	for _, c := range []struct {
		nr   Nr
		args [6]uint64
		dir  Dir
		want []Piece
	}{
		{Kill, [6]uint64{5, 9, ptr}, In, nil},
		{RtSigqueueinfo, [6]uint64{5, 9, ptr}, In, []Piece{{2, 128, Siginfo}}},
		{PidfdSendSignal, [6]uint64{5, 9, 0}, In, nil},
		{SchedSetaffinity, [6]uint64{5, 1 << 40, ptr}, In, []Piece{{2, 0, Plain}}},
		{SchedSetaffinity, [6]uint64{5, 1<<40 | 8, ptr}, In, []Piece{{2, 8, Plain}}},
		{SchedGetaffinity, [6]uint64{5, 0xffffffff, ptr}, Out, []Piece{{2, 1024, Plain}}},
		{Prlimit64, [6]uint64{5, 7, ptr, 0}, Out, nil},
		{Prlimit64, [6]uint64{5, 7, ptr, ptr}, Out, []Piece{{3, 16, Plain}}},
		{SchedSetattr, [6]uint64{5, ptr}, In, []Piece{{1, 0, Attr}}},
		{SchedSetattr, [6]uint64{5, ptr}, Out, []Piece{{1, 4, Attr}}},
		{SchedGetattr, [6]uint64{5, ptr, 1 << 20}, Out, []Piece{{1, 4096, Plain}}},
		{ClusterMembership, [6]uint64{ptr, 1 << 31, ptr}, Out, []Piece{{0, 8, Plain}, {2, MaxMemory - 8, Plain}}},
	} {
		if got := row(c.nr).Pieces(&c.args, c.dir); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %x: %v, want %v", c.nr, c.args, got, c.want)
		}
	}
}

func TestTarget(t *testing.T) {
	neg := func(v int32) uint64 { return uint64(uint32(v)) }
	me := Caller{PID: 70, PGID: 60, UID: 1000}
	for _, c := range []struct {
		nr   Nr
		args [6]uint64
		want Target
	}{
		{Kill, [6]uint64{99}, Target{OfProcess, 99}},
		{Kill, [6]uint64{1<<32 | 99}, Target{OfProcess, 99}},
		{Kill, [6]uint64{0}, Target{OfGroup, 60}},
		{Kill, [6]uint64{neg(-1)}, Target{Kind: Everyone}},
		{Kill, [6]uint64{neg(-99)}, Target{OfGroup, 99}},
		{Kill, [6]uint64{neg(-1 << 31)}, Target{}},
		{Tgkill, [6]uint64{99, 5}, Target{OfProcess, 99}},
		{Tgkill, [6]uint64{neg(-99), 5}, Target{}},
		{Getsid, [6]uint64{0}, Target{Kind: Self}},
		{Setpriority, [6]uint64{0, 99}, Target{OfProcess, 99}},
		{Setpriority, [6]uint64{1, 0}, Target{OfGroup, 60}},
		{Setpriority, [6]uint64{2, 0}, Target{OfUser, 1000}},
		{Setpriority, [6]uint64{2, neg(-2)}, Target{OfUser, 1<<32 - 2}},
		{Setpriority, [6]uint64{3, 1}, Target{}},
		{IoprioGet, [6]uint64{1, 99}, Target{OfProcess, 99}},
		{IoprioGet, [6]uint64{2, 99}, Target{OfGroup, 99}},
		{IoprioGet, [6]uint64{3, 99}, Target{OfUser, 99}},
		{IoprioGet, [6]uint64{0, 99}, Target{}},
		{Ptrace, [6]uint64{16, 99}, Target{OfProcess, 99}},
		{PidfdSendSignal, [6]uint64{3}, Target{Kind: ByFile}},
		{ClusternodeNum, [6]uint64{}, Target{Kind: Cluster}},
		{None, [6]uint64{}, Target{}},
	} {
		r := Request{Nr: c.nr, Args: c.args, Caller: me}
		if got := r.Target(); got != c.want {
			t.Errorf("%s %x: %v, want %v", c.nr, c.args, got, c.want)
		}
	}
}

func TestWire(t *testing.T) {
	want := &Request{
		Nr: Prlimit64, Args: [6]uint64{1 << 63, 1, 2, 3, 4, 5}, In: []byte("limits"), OutLen: 16,
		Caller: Caller{
			Node: 3, PID: 1, TID: 2, PGID: 3, SID: 4, UID: 5, EUID: 6, SUID: 7, FSUID: 8,
			GID: 9, EGID: 10, SGID: 11, FSGID: 1<<32 - 1, Groups: []uint32{0, 1<<32 - 1}, Caps: 1 << 40,
		},
		Origin: Origin{Node: 3, Incarnation: 1<<64 - 1, Seq: 77},
	}
	b := want.Append(nil)
	got, err := DecodeRequest(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range b {
		if _, err := DecodeRequest(b[:i]); err == nil {
			t.Errorf("%d of %d bytes are accepted", i, len(b))
		}
	}
	if _, err := DecodeRequest(append(b, 0)); err == nil {
		t.Error("more than a request is accepted")
	}
	reply := Reply{Ret: -5, Errno: 3, Out: []byte{1}}
	if got, err := DecodeReply(reply.Append(nil)); err != nil || !reflect.DeepEqual(got, reply) {
		t.Errorf("%+v, %v", got, err)
	}
	biggest := &Request{Nr: Kill, In: make([]byte, MaxMemory), OutLen: MaxMemory, Caller: Caller{
		Groups: make([]uint32, MaxGroups), Caps: 1<<64 - 1,
	}, Origin: Origin{Incarnation: 1<<64 - 1, Seq: 1<<64 - 1}}
	for i := range biggest.Caller.Groups {
		biggest.Caller.Groups[i] = 1<<32 - 1
	}
	if b := biggest.Append(nil); len(b) > MaxRequest {
		t.Errorf("a request has %d bytes, MaxRequest is %d", len(b), MaxRequest)
	} else if _, err := DecodeRequest(b); err != nil {
		t.Error(err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add((&Request{Nr: Kill, In: []byte{1}, Caller: Caller{Groups: []uint32{1}}}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRequest(b)
		if err != nil {
			return
		}
		r.Target()
		again, err := DecodeRequest(r.Append(nil))
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%+v, %+v, %v", r, again, err)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add((&Reply{Ret: -1, Errno: 1, Out: []byte{1}}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeReply(b); err == nil {
			if again, err := DecodeReply(r.Append(nil)); err != nil || !reflect.DeepEqual(r, again) {
				t.Errorf("%+v, %+v, %v", r, again, err)
			}
		}
	})
}
