package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

const roleEnv = "SSI_TEST_ROLE" // the process stands for a role, until its input ends

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The roles are found whatever comes and goes, remembered or not.
func TestRoles(t *testing.T) {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Skip("needs /proc:", err)
	}
	running := map[string]*exec.Cmd{}
	start := func(key, role string) int {
		cmd := &exec.Cmd{Path: own, Args: []string{"ssi", role}, Env: append(os.Environ(), roleEnv+"=1")}
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = in.Close(), cmd.Wait() })
		running[key] = cmd
		// The kernel closes what tells us of the execution before the arguments are
		// in place (fs/exec.c, begin_new_exec).
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
			if err == nil && len(b) > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("role %s has no arguments: %v", role, err)
			}
		}
		return cmd.Process.Pid
	}
	r := &roles{}
	check := func(what string, remembered bool) {
		t.Helper()
		var want []int
		for _, cmd := range running {
			want = append(want, cmd.Process.Pid)
		}
		for range 2 {
			got := r.pids()
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) || (len(r.known) > 0) != remembered {
				t.Errorf("%s: %v, %v remembered, want %v", what, got, r.known, want)
			}
		}
	}
	end := func(key string) {
		_, _ = running[key].Process.Kill(), running[key].Wait()
		delete(running, key)
	}
	check("none", false)
	for _, role := range []string{"init", "mount", "spawn"} {
		start(role, role)
	}
	check("three", false)
	start("node", "node")
	check("all", true)
	end("mount")
	check("one has ended", false)
	start("mount", "mount")
	check("it was started anew", true)
	end("spawn")
	start("spawn", "spawn")
	check("another one was", true)
	end("node")
	start("copy", "spawn")
	check("two of one, one missing", false)
	start("node", "node")
	check("a copy", false)
	end("copy")
	start("other", "cluster")
	delete(running, "other")
	check("all, and a command", true)
}
