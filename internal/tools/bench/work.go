package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	workBudget = 1.03 // times native
	workRounds = 40
	straceRuns = 20
	commits    = 300
	workFiles  = 600
	functions  = 50 // of the C program
)

// measureWork measures ordinary programs that a user runs on a node, beside the
// same programs in the same node without filter and clusterwide /proc.
func measureWork(ctx context.Context, s *site) ([]Result, error) {
	dir := filepath.Join(shareDir, "work")
	if err := writeWork(ctx, dir); err != nil {
		return nil, err
	}
	p, err := s.startPair(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer p.close()
	python := "/usr/bin/python3" // what comes first in PATH may be a script that looks for it
	if _, err := os.Stat(python); err != nil {
		python = "python3"
	}
	repo := filepath.Join(dir, "repo")
	var results []Result
	for _, prog := range []struct {
		figure string
		argv   []string
	}{
		{"git status; git log --stat", []string{"sh", "-c", "git status && git log --stat", "sh"}},
		{"python3, a script", []string{python, filepath.Join(dir, "work.py"), repo}},
		{"gcc -O1 -c", []string{"gcc", "-O1", "-c", "-o", "/tmp/work.o", filepath.Join(dir, "work.c")}},
		{"tar -c", []string{"tar", "-cf", "/tmp/work.tar", "."}},
		// The C library sets the mode of a directory by /proc/self/fd.
		{"tar -x", []string{"sh", "-c", "rm -rf /tmp/work && mkdir /tmp/work && tar -xf /tmp/work.tar -C /tmp/work"}},
	} {
		o := order{Load: load{Parallel: 1, For: 30 * time.Second, Max: 1}, Argv: prog.argv, Dir: repo}
		ours, native, err := p.compare(ctx, workRounds, jobProcs, o)
		if err != nil {
			return results, err
		}
		r := Result{
			Figure: prog.figure, Unit: ms, Budgets: []Budget{{Limit: workBudget, Times: true}}, Stats: statsOf(ms, durations(ms, ours)),
			Peers: []Peer{{Name: "native, same node", Stats: statsOf(ms, durations(ms, native))}},
		}
		for _, how := range []struct {
			name  string
			flags []string
		}{
			{"strace -f -e trace=kill", nil},
			{"the same, --seccomp-bpf", []string{"--seccomp-bpf"}},
		} {
			traced := o
			traced.Load.Max = straceRuns
			traced.Argv = append(append([]string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=kill", "-e", "signal=none"}, how.flags...), prog.argv...)
			peer := Peer{Name: how.name}
			if got, err := p.native.do(ctx, jobProcs, traced); err == nil {
				peer.Stats = statsOf(ms, durations(ms, got.Durations))
			} else {
				peer.Error = err.Error()
			}
			r.Peers = append(r.Peers, peer)
		}
		results = append(results, r)
	}
	return results, nil
}

// writeWork makes what the programs work on: a repository, a script, a source.
func writeWork(ctx context.Context, dir string) error {
	repo := filepath.Join(dir, "repo")
	if err := os.MkdirAll(repo, 0o755); err != nil {
		return err
	}
	if err := command(ctx, "git", "init", "-q", "-b", "main", repo); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	load := exec.CommandContext(ctx, "git", "-C", repo, "fast-import", "--quiet")
	load.Stdin = history()
	if out, err := load.CombinedOutput(); err != nil {
		return fmt.Errorf("git fast-import: %w: %s", err, out)
	}
	if err := command(ctx, "git", "-C", repo, "checkout", "-q", "main"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "work.py"), []byte(script()), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "work.c"), source(), 0o644)
}

// history is a repository as git fast-import reads it.
func history() *bytes.Buffer {
	var b bytes.Buffer
	for c := range commits {
		message := fmt.Sprintf("change %d", c)
		fmt.Fprintf(&b, "commit refs/heads/main\ncommitter bench <bench@localhost> %d +0000\ndata %d\n%s\n", 1700000000+c, len(message), message)
		for i := range workFiles / commits {
			text := strings.Repeat(fmt.Sprintf("line of file %d of change %d\n", i, c), 300)
			fmt.Fprintf(&b, "M 100644 inline dir%d/file%d-%d\ndata %d\n%s\n", c%40, c, i, len(text), text)
		}
	}
	return &b
}

// script is what python does: it reads files, computes, and makes JSON.
func script() string {
	return `import hashlib, json, os, sys
found = {}
for at, dirs, files in os.walk(sys.argv[1]):
    if ".git" in dirs:
        dirs.remove(".git")
    for name in files:
        with open(os.path.join(at, name), "rb") as f:
            found[name] = hashlib.sha256(f.read()).hexdigest()
for _ in range(10):
    found = json.loads(json.dumps(found, sort_keys=True))
print(len(found), sum(i * i % 7 for i in range(200000)))
`
}

// source is what gcc compiles.
func source() []byte {
	var b bytes.Buffer
	b.WriteString("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n")
	for i := range functions {
		fmt.Fprintf(&b, "int f%d(const char *s, int n)\n{\n\tint sum = %d;\n\tfor (int i = 0; i < n; i++)\n\t\tsum = sum * 31 + s[i %% %d];\n\treturn sum > 0 ? printf(\"%%d\", sum) : (int)strlen(s);\n}\n", i, i, i+1)
	}
	return b.Bytes()
}
