package main_test

import (
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	maxLines  = 500 // of a file
	minDoc    = 200 // bytes of a package doc: less cannot say what it must
	unsafePkg = "internal/sys"
)

// Every package has one doc, in one file, that says more than its name.
func TestPackageDocs(t *testing.T) {
	pkgs := packages(t)
	for _, dir := range sortedDirs(pkgs) {
		var docs []source
		code := false
		for _, s := range pkgs[dir] {
			if s.test || s.generated {
				continue
			}
			code = true
			if s.file.Doc != nil && s.file.Doc.Text() != "" {
				docs = append(docs, s)
			}
		}
		switch {
		case !code:
			continue
		case len(docs) == 0:
			t.Errorf("package %s has no doc", dir)
			continue
		case len(docs) > 1:
			t.Errorf("package %s has %d docs: %s and %s", dir, len(docs), docs[0].path, docs[1].path)
		}
		doc, name := docs[0].file.Doc.Text(), docs[0].file.Name.Name
		start := "Package " + name + " "
		if name == "main" {
			start = "Command "
		}
		if !strings.HasPrefix(doc, start) || len(doc) < minDoc && !schema(dir) {
			t.Errorf("%s: the doc must begin with %q and say purpose, lock order, goroutines, limits and what the package must never do", docs[0].path, start)
		}
	}
}

// No file is too long to be read at once.
func TestFileLengths(t *testing.T) {
	for _, s := range sources(t) {
		if !s.generated && s.lines > maxLines {
			t.Errorf("%s has %d lines, more than %d: one aspect per file", s.path, s.lines, maxLines)
		}
	}
}

// Nothing happens before main: there are no init functions.
func TestNoInit(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" && !s.generated {
				t.Errorf("%s has an init function: let main call what must be done", s.path)
			}
		}
	}
}

// unsafe and what is as unsafe is in one place.
func TestUnsafe(t *testing.T) {
	raw := regexp.MustCompile(`^(unix|syscall)\.(Raw)?Syscall(6|9|NoError)?$`)
	for _, s := range sources(t) {
		_, foreign := s.imports()
		if slices.Contains(foreign, "unsafe") && s.dir != unsafePkg && !s.generated && !s.test {
			t.Errorf("%s imports unsafe; only %s may", s.path, unsafePkg)
		}
		for _, decl := range s.file.Comments {
			if strings.Contains(decl.Text(), "go:linkname") || strings.HasPrefix(decl.List[0].Text, "//go:linkname") {
				t.Errorf("%s uses go:linkname", s.path)
			}
		}
		if s.dir == unsafePkg || s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if name := selector(n); raw.MatchString(name) {
				t.Errorf("%s uses %s; raw system calls are in %s only", s.path, name, unsafePkg)
			}
			return true
		})
	}
}

// selector is "pkg.Name" for a selector of two names, or "".
func selector(n ast.Node) string {
	if sel, ok := n.(*ast.SelectorExpr); ok {
		if x, ok := sel.X.(*ast.Ident); ok {
			return x.Name + "." + sel.Sel.Name
		}
	}
	return ""
}

// State belongs to values, not to packages. Allowed are errors to compare with,
// embedded files, array tables that nothing writes, compile-time checks
// (var _ T = x), and the version that the linker sets in main.
func TestNoPackageState(t *testing.T) {
	pkgs := packages(t)
	for _, dir := range sortedDirs(pkgs) {
		for _, s := range pkgs[dir] {
			if s.test || s.generated {
				continue
			}
			for _, decl := range s.file.Decls {
				g, ok := decl.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, spec := range g.Specs {
					v := spec.(*ast.ValueSpec)
					for i, name := range v.Names {
						if !constantVar(g, v, i) || written(pkgs[dir], name.Name) {
							t.Errorf("%s: package variable %s: put it into a value that someone owns", s.path, name.Name)
						}
					}
				}
			}
		}
	}
}

// constantVar reports whether the i-th name of a declaration is one of the
// allowed kinds.
func constantVar(g *ast.GenDecl, v *ast.ValueSpec, i int) bool {
	if v.Names[i].Name == "_" || v.Names[i].Name == "version" {
		return true
	}
	for _, doc := range []*ast.CommentGroup{g.Doc, v.Doc} {
		if doc != nil && strings.HasPrefix(doc.List[len(doc.List)-1].Text, "//go:embed ") {
			return true
		}
	}
	if i >= len(v.Values) {
		return false
	}
	switch x := v.Values[i].(type) {
	case *ast.CallExpr:
		switch selector(x.Fun) {
		case "errors.New", "errno.New", "fmt.Errorf":
			return strings.HasPrefix(strings.ToLower(v.Names[i].Name), "err")
		}
	case *ast.CompositeLit:
		a, ok := x.Type.(*ast.ArrayType)
		return ok && a.Len != nil
	}
	return false
}

// written reports whether something in the package assigns to a variable or
// takes its address.
func written(files []source, name string) bool {
	found := false
	base := func(e ast.Expr) bool {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.Ident:
				return x.Name == name
			default:
				return false
			}
		}
	}
	for _, s := range files {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch x := n.(type) {
			case *ast.AssignStmt:
				found = found || x.Tok != token.DEFINE && slices.ContainsFunc(x.Lhs, base)
			case *ast.IncDecStmt:
				found = found || base(x.X)
			case *ast.UnaryExpr:
				found = found || x.Op == token.AND && base(x.X)
			}
			return true
		})
	}
	return found && name != "_" && name != "version"
}

// pure are the packages that a simulation runs: they get time and chance from
// their caller. A file in impure is a helper beside such a core.
const (
	pure   = "cluster/core cluster/member cluster/registry"
	impure = "cluster/registry/hub.go"
)

// The cores have no clock, no goroutine, no lock, no network and no disk.
func TestPure(t *testing.T) {
	forbidden := []string{"os", "os/exec", "sync", "sync/atomic", "syscall", "log", "log/slog", "golang.org/x/sys/unix", "crypto/rand"}
	// net is allowed for what only takes addresses apart.
	calls := regexp.MustCompile(`^(net\.(Dial.*|Listen.*|Lookup.*|Interface.*|Resolve.*|File.*)|time\.(Now|Since|Until|Sleep|After|AfterFunc|NewTimer|NewTicker|Tick)|rand\.(Int|Intn|IntN|Int64|Int63|Uint32|Uint64|N|Float64|Perm|Shuffle|ExpFloat64|NormFloat64))$`)
	for _, s := range sources(t) {
		if s.test || s.generated || !slices.Contains(strings.Fields(pure), s.dir) || slices.Contains(strings.Fields(impure), s.path) {
			continue
		}
		_, foreign := s.imports()
		for _, p := range foreign {
			if slices.Contains(forbidden, p) {
				t.Errorf("%s imports %s, but %s is pure", s.path, p, s.dir)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if name := selector(n); calls.MatchString(name) {
				t.Errorf("%s uses %s, but %s is pure", s.path, name, s.dir)
			}
			if _, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s starts a goroutine, but %s is pure", s.path, s.dir)
			}
			return true
		})
	}
}

// Tests wait for conditions, not for time to pass: the only place to sleep is a
// loop that looks at the condition and has an end.
func TestNoSleepInTests(t *testing.T) {
	for _, s := range sources(t) {
		if n := sleeps(s.file, false); s.test && n > 0 {
			t.Errorf("%s: time.Sleep outside of a polling loop: wait for the condition, with a deadline", s.path)
		}
	}
}

// sleeps counts the calls of time.Sleep below n that are in no for loop with a
// way out.
func sleeps(n ast.Node, polling bool) int {
	count := 0
	ast.Inspect(n, func(child ast.Node) bool {
		if loop, ok := child.(*ast.ForStmt); ok && child != n {
			count += sleeps(loop, polling || loop.Cond != nil || leaves(loop.Body))
			return false
		}
		if selector(child) == "time.Sleep" && !polling {
			count++
		}
		return true
	})
	return count
}

// leaves reports whether a loop's body has an if that can end it.
func leaves(body *ast.BlockStmt) bool {
	found := false
	ast.Inspect(body, func(n ast.Node) bool {
		if branch, ok := n.(*ast.IfStmt); ok {
			ast.Inspect(branch.Body, func(n ast.Node) bool {
				switch x := n.(type) {
				case *ast.ReturnStmt:
					found = true
				case *ast.BranchStmt:
					found = found || x.Tok == token.BREAK
				}
				return true
			})
		}
		return true
	})
	return found
}

// Links in the documents lead somewhere.
func TestLinks(t *testing.T) {
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*.md", "docs/*/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, more...)
	}
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s refers to %s: %v", doc, m[1], err)
			}
		}
	}
}
