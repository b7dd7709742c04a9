package gate

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
	"ssi/vproc/call"
)

func notificationOf(arch uint32, nr int32, args [6]uint64) sys.Notification {
	return sys.Notification{ID: 1, TID: 1, Arch: arch, Nr: nr, Args: args}
}

// Whatever registers and memory a program has, what is made of them is a request
// that travels, and what is written lies where the program said.
func FuzzRequest(f *testing.F) {
	f.Add(true, int32(302), uint64(1<<20), uint64(7), uint64(1<<16), uint64(1<<16+8), uint64(0), uint64(0), pattern(200), pattern(100))
	f.Add(false, int32(178), uint64(1<<20), uint64(9), uint64(1<<16), uint64(0), uint64(0), uint64(0), pattern(200), pattern(100))
	f.Add(true, int32(314), uint64(1<<20), uint64(1<<16), uint64(0), uint64(0), uint64(0), uint64(0), words(56, 1, 2, 3), words(56))
	f.Add(true, int32(call.ClusterBase+3), uint64(1<<16), uint64(1<<31), uint64(1<<16+8), uint64(0), uint64(0), uint64(0), pattern(9000), pattern(9000))
	rows := newRows()
	f.Fuzz(func(t *testing.T, is64 bool, nr int32, a, b, c, d, e, g uint64, data, out []byte) {
		arch := uint32(unix.AUDIT_ARCH_I386)
		if is64 {
			arch = unix.AUDIT_ARCH_X86_64
		}
		n := notificationOf(arch, nr, [6]uint64{a, b, c, d, e, g})
		row := rows.of(&n)
		if row == nil {
			return
		}
		m := &fake{start: 1 << 16, data: data, written: map[uint64]byte{}}
		fr := newFrame(row, &n)
		r, errno := fr.request(m)
		if errno != 0 {
			if errno != unix.EFAULT {
				t.Errorf("%s: %v", row.Name, errno)
			}
			return
		}
		if len(r.In) > call.MaxMemory || r.OutLen > call.MaxMemory {
			t.Errorf("%s: %d bytes in, %d out", row.Name, len(r.In), r.OutLen)
		}
		if _, err := call.DecodeRequest(r.Append(nil)); err != nil {
			t.Errorf("%s: %v", row.Name, err)
		}
		r.Target()
		for _, p := range row.Mem {
			if p.Dir != 0 && r.Args[p.Arg] > 1 {
				t.Errorf("%s: the address %#x travels", row.Name, r.Args[p.Arg])
			}
		}
		if e := fr.write(m, out); e != 0 && e != unix.EFAULT {
			t.Errorf("%s: %v", row.Name, e)
		}
		if len(m.written) > int(r.OutLen) {
			t.Errorf("%s: %d bytes are written, there is room for %d", row.Name, len(m.written), r.OutLen)
		}
	})
}

const status = "Name:\tx\nUmask:\t0022\nTgid:\t7\nNgid:\t0\nPid:\t8\nPPid:\t1\nTracerPid:\t0\n" +
	"Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t4294967295\nFDSize:\t64\nGroups:\t10 20 \n" +
	"NStgid:\t7\nNSpid:\t8\nNSpgid:\t9\nNSsid:\t10\nCapInh:\t0000000000000000\nCapEff:\t000001ffffffffff\n"

func TestParseStatus(t *testing.T) {
	c, nested, err := parseStatus([]byte(status))
	want := call.Caller{PID: 7, TID: 8, PGID: 9, SID: 10, UID: 1, EUID: 2, SUID: 3, FSUID: 4, GID: 5, EGID: 6, SGID: 7, FSGID: 1<<32 - 1, Caps: 0x1ffffffffff}
	if err != nil || nested || !equalCaller(c, want) || len(c.Groups) != 2 || c.Groups[1] != 20 {
		t.Errorf("%+v, %v, %v", c, nested, err)
	}
	if _, nested, err := parseStatus([]byte(strings.Replace(status, "NSpid:\t8\n", "NSpid:\t8\t1\n", 1))); err != nil || !nested {
		t.Errorf("nested: %v, %v", nested, err)
	}
	for _, cut := range []string{"Tgid:\t7\n", "\t4\nGid", "NSsid:\t10\n", "CapEff:\t000001ffffffffff\n", "Groups:\t10 20 \n"} {
		if _, _, err := parseStatus([]byte(strings.Replace(status, cut, "", 1))); err == nil {
			t.Errorf("a status without %q is read", cut)
		}
	}
	for _, worse := range []string{"Uid:\t4294967296", "Uid:\t-1", "Uid:\tx"} {
		if _, _, err := parseStatus([]byte(strings.Replace(status, "Uid:\t1", worse, 1))); err == nil {
			t.Errorf("a status with %q is read", worse)
		}
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte(status))
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _, err := parseStatus(b)
		if err == nil && (c.PID <= 0 || c.TID <= 0 || c.PGID < 0 || c.SID < 0 || len(c.Groups) > call.MaxGroups) {
			t.Errorf("%+v", c)
		}
	})
}

// Whatever is in the file, what is gone on with is a journal.
func FuzzJournal(f *testing.F) {
	j, _, err := openJournal(filepath.Join(f.TempDir(), "journal"), slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	i := <-j.free
	j.prepare(i, 3)
	*j.notification(i) = sys.Notification{ID: 5, TID: 6}
	boot := string(j.mem[offBootID : offBootID+16])
	f.Add(uint(0), j.mem[:300])
	f.Add(uint(headSize), j.mem[headSize:300])
	f.Add(uint(offNext), []byte{0})
	mem := make([]byte, journalSize)
	f.Fuzz(func(t *testing.T, at uint, b []byte) {
		copy(mem, j.mem)
		copy(mem[at%journalSize:], b)
		k := &journal{mem: mem}
		if k.check(boot) != "" {
			if err := k.begin(boot); err != nil || k.check(boot) != "" {
				t.Fatalf("begun anew: %v, %s", err, k.check(boot))
			}
		}
		seen := map[uint64]bool{}
		for i := range slots {
			if k.notification(i).ID == 0 {
				continue
			}
			if seen[k.seq(i)] {
				t.Errorf("call %d is there twice", k.seq(i))
			}
			seen[k.seq(i)] = true
		}
		l := k.slot(0)
		k.prepare(0, 9)
		if seen[k.seq(0)] || k.listener(0) != 9 || len(l) != slotSize {
			t.Errorf("the next call is %d of listener %d", k.seq(0), k.listener(0))
		}
	})
}
