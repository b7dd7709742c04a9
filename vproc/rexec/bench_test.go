package rexec_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"ssi/internal/api"
	"ssi/internal/id"
	"ssi/vproc/rexec"
)

func benchRun(b *testing.B, o rexec.Options) {
	b.Helper()
	st, err := rexec.Run(context.Background(), o)
	if err != nil || st != (rexec.ExitStatus{}) {
		b.Fatal(st, err)
	}
}

// BenchmarkTrue is `onnode 2 true` without the start of the command itself.
func BenchmarkTrue(b *testing.B) {
	base := b.TempDir()
	m := boot(b, base, 1)
	boot(b, base, 2)
	b.Setenv(api.SocketEnv, m.socket())
	for _, node := range []int{1, 2} {
		b.Run("node"+strconv.Itoa(node), func(b *testing.B) {
			o := rexec.Options{Node: id.Node(node), Argv: []string{"true"}, Stdout: os.Stdout, Stderr: os.Stderr}
			benchRun(b, o)
			var times []time.Duration
			for b.Loop() {
				start := time.Now()
				benchRun(b, o)
				times = append(times, time.Since(start))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "us-p50")
			b.ReportMetric(float64(times[0].Microseconds()), "us-min")
		})
	}
	b.Run("fork", func(b *testing.B) { // the same without a cluster
		for b.Loop() {
			if err := exec.Command("true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkStdout moves 1 GiB from dd on the other node, BenchmarkStdin to cat
// there.
func BenchmarkStdout(b *testing.B) {
	base := b.TempDir()
	m := boot(b, base, 1)
	boot(b, base, 2)
	b.Setenv(api.SocketEnv, m.socket())
	const blocks = 1024
	b.SetBytes(blocks << 20)
	for b.Loop() {
		benchRun(b, rexec.Options{Node: 2, Argv: []string{"dd", "if=/dev/zero", "bs=1M", "count=" + strconv.Itoa(blocks), "status=none"}, Stdout: io.Discard, Stderr: os.Stderr})
	}
}

func BenchmarkStdin(b *testing.B) {
	base := b.TempDir()
	m := boot(b, base, 1)
	boot(b, base, 2)
	b.Setenv(api.SocketEnv, m.socket())
	const size = 1 << 30
	b.SetBytes(size)
	for b.Loop() {
		benchRun(b, rexec.Options{Node: 2, Argv: []string{"sh", "-c", "cat >/dev/null"}, Stdin: io.LimitReader(zeros{}, size), Stdout: os.Stdout, Stderr: os.Stderr})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// BenchmarkOnnode is the whole command, as typed.
func BenchmarkOnnode(b *testing.B) {
	base := b.TempDir()
	m := boot(b, base, 1)
	boot(b, base, 2)
	bin := self(b)
	env := append(os.Environ(), api.SocketEnv+"="+m.socket())
	run := func(args ...string) time.Duration {
		cmd := exec.Command(bin, args...)
		cmd.Env = env
		start := time.Now()
		if err := cmd.Run(); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	run("onnode", "2", "true")
	for b.Loop() {
		run("onnode", "2", "true")
	}
}
