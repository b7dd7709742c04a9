package gate

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/vproc/call"
)

// machine is a program that makes calls of i386: testdata/compat.c.
type machine struct{ *program }

// call makes a call with what is in the buffer; pointer is its address as argument.
func (m machine) call(nr uint32, args [5]uint32, buffer []byte) (ret int32, after []byte) {
	m.t.Helper()
	b := words(nr, args[0], args[1], args[2], args[3], args[4], uint32(len(buffer)))
	if _, err := m.conn.Write(append(b, buffer...)); err != nil {
		m.t.Fatal(err)
	}
	answer := make([]byte, 4+256)
	if _, err := io.ReadFull(m.conn, answer); err != nil {
		m.t.Fatal(err)
	}
	return int32(binary.LittleEndian.Uint32(answer)), answer[4:]
}

const pointer = 0xfeed0000

func compile(t *testing.T, bits string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "compat"+bits)
	out, err := exec.Command("gcc", "-m"+bits, "-O1", "-static", "-no-pie", "-fno-pie", "-nostdlib", "-fno-stack-protector", "-o", path, "testdata/compat.c").CombinedOutput()
	if err != nil {
		t.Skipf("gcc -m%s: %v\n%s", bits, err, out)
	}
	return path
}

// Programs of 32 bits, and those of 64 that make the calls of 32.
func TestI386(t *testing.T) {
	pid := uint32(foreignPID(5))
	for _, bits := range []string{"32", "64"} {
		t.Run(bits, func(t *testing.T) {
			m := machine{start(t, nil, compile(t, bits))}
			h := &recorder{answer: func(q *call.Request) call.Outcome {
				switch q.Nr {
				case call.SchedRrGetInterval:
					return call.Outcome{Reply: call.Reply{Out: words(3, 0, 500, 0)}}
				case call.SchedGetaffinity:
					return call.Outcome{Reply: call.Reply{Ret: 8, Out: words(3, 1)}}
				case call.Kill:
					return call.Fail(unix.EPERM)
				}
				return value(21)
			}}
			open(t, h, m.listener)
			if r, _ := m.call(37, [5]uint32{pid, 9}, nil); r != -int32(unix.EPERM) || h.last(t).Args[0] != uint64(pid) {
				t.Errorf("kill: %d, %x", r, h.last(t).Args)
			}
			if r, _ := m.call(147, [5]uint32{pid}, nil); r != 21 {
				t.Errorf("getsid: %d", r)
			}
			if r, _ := m.call(20, [5]uint32{}, nil); r != int32(m.cmd.Process.Pid) {
				t.Errorf("getpid: %d", r)
			}
			info := append(words(9, 0, 0xffffffff, 77, 1000, 0x87654321), make([]byte, 104)...)
			want := append(words(9, 0, 0xffffffff, 0, 77, 1000, 0x87654321), make([]byte, 100)...)
			if r, _ := m.call(178, [5]uint32{pid, 9, pointer}, info); r != 21 || !bytes.Equal(h.last(t).In, want) {
				t.Errorf("rt_sigqueueinfo: %d, %x", r, h.last(t).In)
			}
			if r, _ := m.call(178, [5]uint32{pid, 9, 8}, nil); r != -int32(unix.EFAULT) {
				t.Errorf("rt_sigqueueinfo of nothing: %d", r)
			}
			if r, b := m.call(161, [5]uint32{pid, pointer}, bytes.Repeat([]byte{0xee}, 16)); r != 0 || !bytes.Equal(b[:12], words(3, 500, 0xeeeeeeee)) {
				t.Errorf("sched_rr_get_interval: %d, %x", r, b[:16])
			}
			if r, b := m.call(242, [5]uint32{pid, 4, pointer}, words(0, 9)); r != 4 || !bytes.Equal(b[:8], words(3, 9)) {
				t.Errorf("sched_getaffinity: %d, %x", r, b[:8])
			}
			if r, _ := m.call(call.ClusterBase+1, [5]uint32{}, nil); r != 21 {
				t.Errorf("clusternode_num: %d", r)
			}
			if r, _ := m.call(351, [5]uint32{pid, pointer}, words(48, 7)); r != 21 || len(h.last(t).In) != 48 {
				t.Errorf("sched_setattr: %d, %x", r, h.last(t).In)
			}
		})
	}
}

// native is a Handler that leaves all to the kernel.
func native(context.Context, *call.Request) call.Outcome { return call.Outcome{Continue: true} }

// output is what a program with the filter, started by root, prints.
func output(t *testing.T, argv ...string) string {
	t.Helper()
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Skipf("%s is not installed: %v", argv[0], err)
	}
	var out bytes.Buffer
	p := start(t, &out, argv...)
	open(t, handlerFunc(native), p.listener)
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%s: %v", strings.Join(argv, " "), err)
	}
	return strings.TrimSpace(out.String())
}

// Programs that change who they are go on working.
func TestSetuid(t *testing.T) {
	if s := output(t, "su", "nobody", "-s", "/bin/sh", "-c", "id -un; id -ru"); !strings.HasPrefix(s, "nobody\n") {
		t.Errorf("su: %q", s)
	}
	t.Run("sudo", func(t *testing.T) {
		if s := output(t, "sudo", "-u", "nobody", "id", "-un"); s != "nobody" {
			t.Errorf("sudo: %q", s)
		}
	})
	id, err := exec.LookPath("id")
	if err != nil {
		t.Skip(err)
	}
	b, err := os.ReadFile(id)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "setuid") // not t.TempDir: nobody must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "id")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, os.ModeSetuid|0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if s := output(t, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", path, "-u"); s != "0" {
		t.Errorf("a setuid program of root runs as %q", s)
	}
}

// strace(1) sees calls with their results, those that are caught too.
func TestStrace(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skipf("strace is not installed: %v", err)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	p := caller(t, "strace", "-f", "-o", trace)
	open(t, handlerFunc(func(_ context.Context, r *call.Request) call.Outcome {
		if r.Nr == call.Getsid {
			return value(4711)
		}
		return call.Outcome{Continue: true}
	}), p.listener)
	if r := p.call(unix.SYS_GETSID, [6]uint64{foreignPID(3)}); r.Ret != 4711 || r.Errno != 0 {
		t.Errorf("%d, %v", r.Ret, r.Errno)
	}
	eventually(t, "the trace", func() bool {
		b, err := os.ReadFile(trace)
		return err == nil && strings.Contains(string(b), "= 4711")
	})
}

// A shell with jobs makes calls of all kinds that are caught.
func TestShell(t *testing.T) {
	s := output(t, "setsid", "-w", "bash", "-c", `set -m; sleep 1000 & kill -STOP %1; kill -CONT %1; kill -TERM -$!; wait $!; echo $?; kill -0 $$ && echo alive; set +m; renice -n 1 -g 0 >/dev/null; nice`)
	if !strings.HasSuffix(s, "143\nalive\n1") {
		t.Errorf("%q", s)
	}
}
