package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/keeper"
	"ssi/vproc/gate"
)

// The conformance programs of the tree, with the real gate on node 1: what one
// Linux says about their targets, two nodes say too. How targets get to node 2 is
// that of these tests.
const (
	callerEnv = "SSI_TEST_CALLER" // the process takes the filter and becomes its arguments
	onnodeEnv = "SSI_TEST_ONNODE" // the process has its arguments run on node 2, whose directory it is
)

// becomeCaller takes the filter, sends the listener to file 3, and becomes args.
func becomeCaller(args []string) error {
	l, err := gate.Install(1)
	if err != nil {
		return err
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(fd)), nil, 0) }); cerr != nil || err != nil {
		return errors.Join(cerr, err)
	}
	_ = l.Close()
	var one [1]byte
	if _, err := unix.Read(3, one[:]); err != nil { // the gate is there
		return err
	}
	unix.CloseOnExec(3)
	_ = os.Unsetenv(callerEnv)
	return unix.Exec(args[0], args, os.Environ())
}

// runOnNode has args run on node 2 with standard input and output of this process,
// and ends as they do.
func runOnNode(dir string, args []string) error {
	signal.Ignore(unix.SIGPIPE)
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, "onnode")})
	if err != nil {
		return err
	}
	b, err := json.Marshal(args)
	if err != nil {
		return err
	}
	if _, _, err := c.WriteMsgUnix(b, unix.UnixRights(0, 1), nil); err != nil {
		return err
	}
	_, _ = unix.Close(0), unix.Close(1)
	answer := make([]byte, 64)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	var status int
	if _, err := fmt.Sscan(string(answer[:n]), &status); err != nil {
		return err
	}
	ws := syscall.WaitStatus(status)
	if ws.Signaled() {
		signal.Reset(ws.Signal())
		_ = unix.Kill(os.Getpid(), ws.Signal())
		select {}
	}
	os.Exit(ws.ExitStatus())
	return nil
}

// serveOnNode runs what runOnNode sends.
func serveOnNode(dir string) error {
	path := filepath.Join(dir, "onnode")
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				if err := runHere(c); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}()
		}
	}()
	return nil
}

func runHere(c *net.UnixConn) error {
	b := make([]byte, 8192)
	n, files, err := keeper.Receive(c, b)
	if err != nil {
		return err
	}
	defer keeper.CloseAll(files)
	var args []string
	if err := json.Unmarshal(b[:n], &args); err != nil || len(files) != 2 {
		return fmt.Errorf("%d files: %w", len(files), err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	keeper.CloseAll(files)
	go func() { // who asked is gone
		_, _ = io.Copy(io.Discard, c)
		_ = cmd.Process.Kill()
	}()
	_ = cmd.Wait()
	_, err = fmt.Fprint(c, int(cmd.ProcessState.Sys().(syscall.WaitStatus)))
	if errors.Is(err, unix.EPIPE) {
		err = nil
	}
	return err
}

// startGate serves the calls of a program that is a caller.
func (w *world) startGate(args []string, env ...string) (cmd *exec.Cmd, begin func()) {
	w.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(w.t, err)
	theirs := os.NewFile(uintptr(fds[1]), "")
	conn, err := net.FileConn(os.NewFile(uintptr(fds[0]), ""))
	must(w.t, err)
	must(w.t, conn.SetDeadline(time.Now().Add(patience)))
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	w.t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), append(env, callerEnv+"=1")...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.WaitDelay = time.Second // its children may have its output
	return cmd, func() {
		w.t.Helper()
		_ = theirs.Close()
		_, files, err := keeper.Receive(conn.(*net.UnixConn), make([]byte, 1))
		must(w.t, err)
		if len(files) != 1 {
			w.t.Fatalf("%d listeners", len(files))
		}
		g, err := gate.New(gate.Config{Log: w.m.log, Node: 1, Journal: filepath.Join(w.dir, "journal"), Handler: w.m})
		must(w.t, err)
		must(w.t, g.Add(files[0], 1))
		w.t.Cleanup(func() { must(w.t, g.Close()) })
		_, err = conn.Write([]byte{1})
		must(w.t, err)
		_ = conn.Close()
	}
}

func compile(t testing.TB, out, src string) {
	t.Helper()
	msg, err := exec.Command("gcc", "-std=gnu11", "-O1", "-static", "-pthread", "-o", out, src).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", src, err, msg)
	}
}

func TestConformance(t *testing.T) {
	needInside(t)
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	const sources = "../../testdata/conformance"
	compile(t, filepath.Join(dir, "target"), filepath.Join(sources, "target.c"))
	onnode := filepath.Join(dir, "onnode") // words that the programs can read from ONNODE
	for _, c := range []struct {
		name   string
		facts  int
		except string // lines that need more than this package: sessions and groups of targets across nodes
	}{
		{"kill", 65, ", 18) "},
		{"killall", 12, ""},
		{"sigqueue", 30, ""},
		{"tkill", 24, ""},
		{"pidfd", 34, ""},
		{"scheduling", 34, ""},
		{"affinity", 20, ""},
		{"limits", 22, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := filepath.Join(dir, c.name)
			compile(t, program, filepath.Join(sources, c.name+".c"))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			plain := exec.CommandContext(ctx, program)
			want, err := plain.Output()
			if err != nil {
				t.Fatalf("plain Linux: %v\n%s", err, want)
			}
			w := newWorld(t)
			must(t, os.Chmod(filepath.Join(w.dir, "onnode"), 0o777))
			script := fmt.Sprintf("#!/bin/sh\n%s=%s exec %s \"$@\"\n", onnodeEnv, w.dir, os.Args[0])
			must(t, os.WriteFile(onnode, []byte(script), 0o755))
			cmd, begin := w.startGate([]string{program}, "ONNODE="+onnode)
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, os.Stderr
			must(t, cmd.Start())
			begin()
			if err := cmd.Wait(); err != nil {
				t.Errorf("two nodes: %v", err)
			}
			wants, gots := strings.Split(string(want), "\n"), strings.Split(out.String(), "\n")
			if len(wants) < c.facts {
				t.Errorf("only %d facts", len(wants))
			}
			for i := range max(len(wants), len(gots)) {
				var a, b string
				if i < len(wants) {
					a = wants[i]
				}
				if i < len(gots) {
					b = gots[i]
				}
				if a != b && (c.except == "" || !strings.Contains(a, c.except)) {
					t.Errorf("line %d: %q, one Linux says %q", i+1, b, a)
				}
			}
		})
	}
}

// killer sends many signals and tells how long one takes.
const killer = `
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static int less(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return (x > y) - (x < y); }
int main(int argc, char **argv)
{
	static double us[100000];
	int pid = atoi(argv[1]), n = atoi(argv[2]);
	for (int i = 0; i < n && argc; i++) {
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		if (kill(pid, SIGCONT)) return 1;
		clock_gettime(CLOCK_MONOTONIC, &b);
		us[i] = (b.tv_sec - a.tv_sec) * 1e6 + (b.tv_nsec - a.tv_nsec) / 1e3;
	}
	qsort(us, n, sizeof *us, less);
	printf("%f %f\n", us[n / 2], us[n * 99 / 100]);
}
`

// BenchmarkKill is kill(2) of a process of another node through the gate and by a
// deputy, without the way between the nodes: see BenchmarkCall of cluster/ics for
// that.
func BenchmarkKill(b *testing.B) {
	w := newWorld(b)
	m, err := New(Config{Self: 2, Peers: &peers{}, Log: w.m.log, Dir: filepath.Join(w.dir, "two")})
	must(b, err)
	defer m.Close()
	w.peers.direct = m
	src, program := filepath.Join(w.dir, "killer.c"), filepath.Join(w.dir, "killer")
	must(b, os.WriteFile(src, []byte(killer), 0o600))
	compile(b, program, src)
	must(b, window(2))
	pid := w.here(Start{Args: sleeps()})
	must(b, window(1))
	cmd, begin := w.startGate([]string{program, fmt.Sprint(pid), "5000"})
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	must(b, cmd.Start())
	begin()
	must(b, cmd.Wait())
	var p50, p99 float64
	_, err = fmt.Sscan(out.String(), &p50, &p99)
	must(b, err)
	for b.Loop() { //nolint:revive // it is measured above, once
	}
	b.ReportMetric(p50, "p50-µs")
	b.ReportMetric(p99, "p99-µs")
}
