package applet_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"ssi/applet"
)

// newEnv is an Env whose output the test reads.
func newEnv(args ...string) (env *applet.Env, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	env = applet.System(args, "v0-test")
	env.Stdin, env.Stdout, env.Stderr, env.Now = strings.NewReader(""), stdout, stderr, now
	env.Exec, env.Bootstrap = fakeExec, fakeBootstrap{}
	return env, stdout, stderr
}

// walk calls f for every command and subcommand, with the words that reach it.
func walk(t *testing.T, f func(words []string, cmd *cobra.Command)) {
	t.Helper()
	env, _, _ := newEnv("ssi")
	for _, cmd := range applet.NewTree(env, applet.Table()).Commands() {
		if cmd.Hidden {
			continue
		}
		f([]string{cmd.Name()}, cmd)
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				f([]string{cmd.Name(), sub.Name()}, sub)
			}
		}
	}
}

// The help of every command is as in testdata/help; -update rewrites it.
func TestHelp(t *testing.T) {
	used := map[string]bool{}
	walk(t, func(words []string, _ *cobra.Command) {
		name := strings.Join(words, "-") + ".txt"
		used[name] = true
		env, stdout, stderr := newEnv(append([]string{"ssi"}, append(words, "--help")...)...)
		if status := applet.Main(env, applet.Table()); status != 0 || stderr.Len() > 0 {
			t.Errorf("%s --help: status %d, %s", words, status, stderr)
		}
		path := filepath.Join("testdata", "help", name)
		if *update {
			if err := os.WriteFile(path, stdout.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("%v; run go test ./applet -update", err)
			return
		}
		if diff := cmp.Diff(string(want), stdout.String()); diff != "" {
			t.Errorf("%s --help is not as in %s; if that is meant, run go test ./applet -update:\n%s", words, path, diff)
		}
	})
	files, err := os.ReadDir(filepath.Join("testdata", "help"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !used[f.Name()] {
			t.Errorf("testdata/help/%s is of no command", f.Name())
		}
	}
}

// Every manual is complete.
func TestManuals(t *testing.T) {
	pages := map[string]bool{"ssi(1)": true, "ssi-lab(1)": true}
	for _, e := range applet.Table() {
		pages["ssi-"+e.Name+"(1)"] = true
		pages[e.Name+"(1)"] = !e.NoLink && !e.Stock
	}
	walk(t, func(words []string, _ *cobra.Command) { pages[strings.Join(words, "-")+"(1)"] = true })
	walk(t, func(words []string, cmd *cobra.Command) {
		name := strings.Join(words, " ")
		exit, seeAlso := applet.ManualOf(cmd)
		for what, missing := range map[string]bool{
			"a summary":      cmd.Short == "" || strings.HasSuffix(cmd.Short, "."),
			"a description":  len(cmd.Long) < 40,
			"an example":     cmd.Example == "",
			"exit statuses":  len(exit) < 2,
			"related pages":  len(seeAlso) == 0,
			"an Args check":  cmd.Args == nil && !cmd.DisableFlagParsing,
			"a line to read": cmd.RunE == nil,
		} {
			if missing {
				t.Errorf("%s lacks %s", name, what)
			}
		}
		for _, ref := range seeAlso {
			if !pages[ref] {
				t.Errorf("%s refers to %s, which there is not", name, ref)
			}
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > 90 {
				t.Errorf("%s: a line of %d characters: %s", name, n, line)
			}
		}
	})
	for _, e := range applet.Table() {
		if !regexp.MustCompile(`^(ssi-)?[a-z_]+$`).MatchString(e.Name) || e.Short == "" || e.Group == "" || (e.New == nil) == (e.Run == nil) {
			t.Errorf("entry %+v", e)
		}
	}
}

// The summary in the table is that of the command, so that the list of commands
// costs no constructor.
func TestSummaries(t *testing.T) {
	env, _, _ := newEnv("ssi")
	root := applet.NewTree(env, applet.Table())
	for _, e := range applet.Table() {
		cmd, _, err := root.Find([]string{e.Name})
		if err != nil || cmd.Short != e.Short || cmd.Name() != e.Name {
			t.Errorf("%s: %q in the table, %q in the command %q (%v)", e.Name, e.Short, cmd.Short, cmd.Name(), err)
		}
	}
}

// A role gets its arguments as they are, by link and by argument.
func TestRoles(t *testing.T) {
	var got []string
	table := append(applet.Table(), applet.Entry{Name: "mount", Short: "a file server", Group: applet.GroupRole,
		Run: func(_ *applet.Env, args []string) int { got = args; return 3 }})
	for _, args := range [][]string{{"/sbin/ssi", "mount", "-x", "--help"}, {"/sbin/mount", "-x", "--help"}, {"-mount", "-x", "--help"}} {
		env, stdout, stderr := newEnv(args...)
		if status := applet.Main(env, table); status != 3 || stdout.Len()+stderr.Len() > 0 {
			t.Errorf("%v: status %d, %s%s", args, status, stdout, stderr)
		}
		if diff := cmp.Diff([]string{"-x", "--help"}, got); diff != "" {
			t.Errorf("%v: %s", args, diff)
		}
	}
	env, stdout, _ := newEnv("ssi", "help", "mount")
	if status := applet.Main(env, table); status != 0 || !strings.Contains(stdout.String(), "started by the system") {
		t.Errorf("help of a role: status %d, %s", status, stdout)
	}
}

// A name can be both: without arguments it is the role.
func TestRoleAndCommand(t *testing.T) {
	ran := 0
	table := append(applet.Table(), applet.Entry{Name: "node", Short: "the node daemon", Group: applet.GroupRole,
		Run: func(*applet.Env, []string) int { ran++; return 3 }})
	env, _, stderr := newEnv("/sbin/ssi", "node")
	if status := applet.Main(env, table); status != 3 || ran != 1 || stderr.Len() > 0 {
		t.Errorf("ssi node: status %d, ran %d times, %s", status, ran, stderr)
	}
	env, _, stderr = newEnv("/sbin/ssi", "node", "approve")
	if status := applet.Main(env, table); status != applet.StatusUsage || ran != 1 || !strings.Contains(stderr.String(), "node approve: arguments are missing") {
		t.Errorf("ssi node approve: status %d, ran %d times, %s", status, ran, stderr)
	}
}

// Only the chosen command is constructed.
func TestOneConstructor(t *testing.T) {
	var made []string
	table := applet.Table()
	for i, e := range table {
		table[i].New = func(env *applet.Env) *cobra.Command {
			made = append(made, e.Name)
			return e.New(env)
		}
	}
	for _, args := range [][]string{{"ssi", "version"}, {"/usr/bin/localview", "--help"}, {"ssi"}, {"ssi", "--version"}, {"ssi", "nosuch"}} {
		made = nil
		env, _, _ := newEnv(args...)
		applet.Main(env, table)
		if len(made) > 1 {
			t.Errorf("%v constructs %v", args, made)
		}
	}
}
