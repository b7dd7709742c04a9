package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// source is one Go file of the tree.
type source struct {
	path      string // from the root of the tree, with slashes
	dir       string
	test      bool // _test.go
	generated bool
	lines     int
	file      *ast.File
}

// imports lists the import paths of the file; those of the tree without "ssi/".
func (s source) imports() (own, foreign []string) {
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser accepted it
		}
		if p, ok := strings.CutPrefix(p, module+"/"); ok {
			own = append(own, p)
		} else {
			foreign = append(foreign, p)
		}
	}
	return own, foreign
}

const module = "ssi"

// readSources parses every Go file of the tree once. Files that need a build tag
// of their own (//go:build deps, ignore) are no part of the program.
func readSources() ([]source, *token.FileSet, error) {
	fset := token.NewFileSet()
	var all []source
	marked := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	tagged := regexp.MustCompile(`(?m)^//go:build (deps|ignore)$`)
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != "." && (strings.HasPrefix(name, ".") || name == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil || tagged.Match(text) {
			return err
		}
		f, err := parser.ParseFile(fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		p = filepath.ToSlash(p)
		all = append(all, source{
			path: p, dir: path.Dir(p), test: strings.HasSuffix(p, "_test.go"),
			generated: marked.Match(text), lines: strings.Count(string(text), "\n"), file: f,
		})
		return nil
	})
	return all, fset, err
}

var parsed = sync.OnceValues(func() ([]source, error) {
	all, _, err := readSources()
	return all, err
})

func sources(t *testing.T) []source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d files were found", len(all))
	}
	return all
}

// packages groups the files by directory.
func packages(t *testing.T) map[string][]source {
	t.Helper()
	m := map[string][]source{}
	for _, s := range sources(t) {
		m[s.dir] = append(m[s.dir], s)
	}
	return m
}

func sortedDirs(m map[string][]source) []string {
	var dirs []string
	for dir := range m {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	return dirs
}
