package proctab

import (
	"fmt"
	"os"
	"testing"

	"ssi/internal/api"
	"ssi/internal/sys"
)

// fakeProc is a proc(5) with n processes, all like this one.
func fakeProc(b *testing.B, n int) string {
	b.Helper()
	root := b.TempDir()
	for i := range n {
		dir := fmt.Sprintf("%s/%d", root, 1000+i)
		if err := os.Mkdir(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		status := fmt.Sprintf("Name:\tx\nTgid:\t%d\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nVmLck:\t0 kB\n", 1000+i)
		for name, text := range map[string]string{"stat": fmt.Sprintf("%d", 1000+i) + statLine[5:], "status": status, "cmdline": "/usr/bin/program\x00--with\x00some=arguments\x00"} {
			if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	return root
}

func BenchmarkParseStat(b *testing.B) {
	b.ReportAllocs()
	in := []byte(statLine)
	for b.Loop() {
		var p api.Process
		if err := parseStat(in, 4096, &p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReader1000(b *testing.B) {
	b.ReportAllocs()
	r, err := NewReader(fakeProc(b, 1000), 1)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for b.Loop() {
		n := 0
		if err := r.List(nil, false, func(*api.Process) error { n++; return nil }); err != nil || n != 1000 {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkListThreeNodes is `ps` without the process of the command: the /proc
// of this machine, three times, through the messages of
// nodes and the local socket.
func BenchmarkListThreeNodes(b *testing.B) {
	dial := start(b, nil)
	n := 0
	for b.Loop() {
		ps, _, failed := list(b, dial(), api.ListProcesses{})
		if n = len(ps); len(failed) != 0 {
			b.Fatal(failed)
		}
	}
	b.ReportMetric(float64(n), "processes")
}

func BenchmarkSignalOtherNode(b *testing.B) {
	n := newNode(b, 2)
	who := sys.Credentials{UID: 4242, GID: 4242}
	ts := []api.ProcessTarget{{PID: 1}}
	for b.Loop() {
		if _, err := n.reader.signal(who, ts, 0); err != nil {
			b.Fatal(err)
		}
	}
}
