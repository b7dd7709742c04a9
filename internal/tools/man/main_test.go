package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Every page has the sections of a manual and nothing that troff chokes on; the
// completions are scripts that their shell accepts.
func TestPages(t *testing.T) {
	dir := t.TempDir()
	if err := run([]string{dir}); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 30 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{".TH ", ".SH NAME\n", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH OPTIONS\n"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s lacks %s", page, want)
			}
		}
	}
	for _, name := range []string{"ssi.1", "onnode.1", "cluster-token.1", "ssi-lab-run.1", "ssi-ps.1", "ssi-doctor.1"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if bash, err := exec.LookPath("bash"); err != nil {
		t.Logf("the bash completion is not checked: %v", err)
	} else if out, err := exec.CommandContext(t.Context(), bash, "-n", filepath.Join(dir, "ssi.bash")).CombinedOutput(); err != nil {
		t.Errorf("ssi.bash: %v: %s", err, out)
	}
	if groff, err := exec.LookPath("groff"); err != nil {
		t.Logf("the pages are not formatted: %v", err)
	} else if out, err := exec.CommandContext(t.Context(), groff, append([]string{"-man", "-Tutf8", "-ww", "-z"}, pages...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v: %s", err, out)
	}
}

// The same sources make the same pages.
func TestReproducible(t *testing.T) {
	var dirs [2]string
	for i := range dirs {
		dirs[i] = t.TempDir()
		if err := run([]string{dirs[i]}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		a, aerr := os.ReadFile(filepath.Join(dirs[0], f.Name()))
		b, berr := os.ReadFile(filepath.Join(dirs[1], f.Name()))
		if aerr != nil || berr != nil || string(a) != string(b) {
			t.Errorf("%s differs (%v, %v)", f.Name(), aerr, berr)
		}
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{".d": `\&.d`, "'a": `\&'a`, "a-b": `a\-b`, `a\b`: `a\eb`, "x…": "x...", "×": `\[u00D7]`} {
		if got := escape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
