package libcluster

import (
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/cluster/member"
	"ssi/vproc/call"
	"ssi/vproc/remote"
)

// needPlain skips on a node of a cluster, where the calls are served.
func needPlain(t *testing.T) {
	t.Helper()
	if _, err := Self(); err == nil {
		t.Skip("this machine is a node of a cluster")
	}
}

// run runs a command and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// A plain machine knows none of the calls, from any language.
func TestPlainGo(t *testing.T) {
	needPlain(t)
	for name, f := range map[string]func() error{
		"GetInfo":    func() error { _, err := GetInfo(); return err },
		"GetNode":    func() error { _, err := GetNode(1); return err },
		"Self":       func() error { _, err := Self(); return err },
		"Available":  func() error { _, err := Available(1); return err },
		"Membership": func() error { _, _, err := Membership(); return err },
		"NodeByName": func() error { _, err := NodeByName("one"); return err },
		"Exec":       func() error { return Exec("/bin/true", []string{"true"}, nil, 1) },
	} {
		if err := f(); !errors.Is(err, unix.ENOSYS) {
			t.Errorf("%s: %v, want ENOSYS", name, err)
		}
	}
	if _, err := GetNode(0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("node 0: %v", err)
	}
	for _, bad := range []error{Exec("a\x00", nil, nil, 1), Exec("a", []string{"\x00"}, nil, 1), Exec("a", nil, []string{"\x00"}, 1)} {
		if !errors.Is(bad, unix.EINVAL) {
			t.Errorf("a string with NUL: %v", bad)
		}
	}
}

func TestPlainC(t *testing.T) {
	needPlain(t)
	const unknown = "Function not implemented"
	want := []string{"cluster_ssiconfig 0 " + unknown}
	for _, name := range strings.Fields("cluster_info cluster_maxnodes clusternode_num clusternode_avail clusternode_info cluster_membership") {
		want = append(want, name+" -1 "+unknown)
	}
	want = append(want, "cluster_getnodebyname 0 "+unknown)
	for _, name := range strings.Fields("rexecve rfork migrate") {
		want = append(want, name+" -1 "+unknown)
	}
	// As every C program may include it, and C++ too.
	for _, args := range [][]string{{"gcc", "-std=gnu11"}, {"gcc", "-std=c99", "-pedantic"}, {"gcc", "-x", "c++"}} {
		program := filepath.Join(t.TempDir(), "plain")
		if args[len(args)-1] == "c++" {
			if _, err := exec.LookPath("g++"); err != nil {
				t.Log("C++ is left out: there is no g++")
				continue
			}
		}
		run(t, args[0], append(args[1:], "-Wall", "-Wextra", "-Werror", "-o", program, "testdata/plain.c")...)
		if got := strings.Split(strings.TrimSpace(run(t, program)), "\n"); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%v: %s\nwant %s", args, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestPlainPython(t *testing.T) {
	needPlain(t)
	got := run(t, "python3", "-c", `
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
buf = ctypes.create_string_buffer(4096)
for nr, args in ((0x5500, (buf, 4096, 0)), (0x5501, ()), (0x5502, (1,)), (0x5503, (buf, 4, buf)), (0x5504, ()), (0x5505, ()), (0x5506, ())):
    r = libc.syscall(ctypes.c_long(nr), *args)
    print(r, errno.errorcode[ctypes.get_errno()])`)
	if want := strings.Repeat("-1 ENOSYS\n", 7); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The header reads what a node writes.
func TestServedC(t *testing.T) {
	program := filepath.Join(t.TempDir(), "served")
	run(t, "gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-o", program, "testdata/served.c")
	if got := run(t, program); got != "ok\n" {
		t.Error(got)
	}
}

// This package reads what a node writes.
func TestServedGo(t *testing.T) {
	m, err := remote.New(remote.Config{
		Self: 1, Log: slog.New(slog.DiscardHandler), Dir: t.TempDir(), Name: "cluster", Members: func() *member.View {
			return &member.View{Epoch: 77, Init: 2, Nodes: []member.Node{
				{Node: 1, State: member.Up, Info: member.Info{Name: "one", Capable: true}, Incarnation: 11, Since: 5},
				{Node: 2, State: member.Down, Info: member.Info{Name: "two", Witness: true}, Incarnation: 1 << 40, Since: 6},
			}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ask := func(node uint64) []byte {
		o := m.Handle(t.Context(), &call.Request{Nr: call.SsiInfo, Args: [6]uint64{1, infoSize, node}, OutLen: infoSize})
		if o.Reply.Errno != 0 || o.Reply.Ret != infoSize || len(o.Reply.Out) != infoSize {
			t.Fatalf("%+v", o)
		}
		return o.Reply.Out
	}
	if got, want := infoOf(ask(0)), (Info{Name: "cluster", Self: 1, MaxNodes: 127, Up: 1, Init: 2, Epoch: 77}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := nodeOf(ask(1)), (Node{Name: "one", Node: 1, State: Up, Capable: true, Incarnation: 11, Since: 5}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := nodeOf(ask(2)), (Node{Name: "two", Node: 2, State: 7, Witness: true, Init: true, Incarnation: 1 << 40, Since: 6}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for s := member.NeverUp; s <= member.Down; s++ {
		if State(s).String() != s.String() {
			t.Errorf("state %d is %s, and %s here", s, s, State(s))
		}
	}
}

func TestState(t *testing.T) {
	if Up.String() != "UP" || State(9).String() != "state 9" {
		t.Errorf("%v, %v", Up, State(9))
	}
}
