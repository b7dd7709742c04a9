package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

func parse(t *testing.T, text string) source {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return source{path: "x.go", dir: "x", file: f}
}

// The check for package state tells state from constants.
func TestPackageStateCheck(t *testing.T) {
	for text, ok := range map[string]bool{
		`var ErrX = errors.New("x")`:                                          true,
		`var ErrX = errno.New(1, "x")`:                                        true,
		`var _ io.Reader = (*T)(nil)`:                                         true,
		"//go:embed x.txt\nvar text string":                                   true,
		`var table = [...]string{"a"}`:                                        true,
		`var table = [...]string{"a"}; func f() { table[0]=""}`:               false,
		`var table = [...]string{"a"}; func f() *string { return &table[0] }`: false,
		`var table = [...]struct{n int}{{1}}; func f() { table[0].n++ }`:      false,
		`var m = map[string]int{}`:                                            false,
		`var s = []string{"a"}`:                                               false,
		`var n int`:                                                           false,
		`var mu sync.Mutex`:                                                   false,
		`var re = regexp.MustCompile("x")`:                                    false,
		`var f = func() {}`:                                                   false,
		`var version = "unknown"`:                                             true,
		`var errX = fmt.Errorf("x: %w", io.EOF)`:                              true,
		`var x = fmt.Sprintf("x")`:                                            false,
		`var a, b = errors.New("a"), 3`:                                       false,
	} {
		s := parse(t, text)
		got := true
		for _, decl := range s.file.Decls {
			g, isVar := decl.(*ast.GenDecl)
			if !isVar || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					got = got && constantVar(g, v, i) && !written([]source{s}, name.Name)
				}
			}
		}
		if got != ok {
			t.Errorf("%s: allowed %v, want %v", text, got, ok)
		}
	}
}

func TestSelector(t *testing.T) {
	s := parse(t, `func f() { time.Sleep(1); a.b.Sleep(); x() }`)
	found := map[string]bool{}
	ast.Inspect(s.file, func(n ast.Node) bool {
		found[selector(n)] = true
		return true
	})
	if !found["time.Sleep"] || found["b.Sleep"] || found["x"] {
		t.Errorf("%v", found)
	}
}

func TestSleepCheck(t *testing.T) {
	for text, want := range map[string]int{
		`func f() { time.Sleep(1) }`:                                             1,
		`func f() { for range 3 { time.Sleep(1) } }`:                             1,
		`func f() { for { time.Sleep(1) } }`:                                     1,
		`func f() { for !done() { time.Sleep(1) } }`:                             0,
		`func f() { for { if done() { return }; time.Sleep(1) } }`:               0,
		`func f() { for { if done() { break }; time.Sleep(1) }; time.Sleep(1) }`: 1,
		`func f() { for d := x; ; time.Sleep(1) { if done() { return } } }`:      0,
	} {
		if got := sleeps(parse(t, text).file, false); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
