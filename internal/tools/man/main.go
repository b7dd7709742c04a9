// Command man writes the man pages and shell completions of ssi into a
// directory: go run ./internal/tools/man DIR.
//
// It reads the same command table as the program, so the pages say what --help
// says. The result depends on nothing but the sources: no date, no machine. It
// has no goroutines and no state, and must never be linked into the program.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"ssi/applet"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: man DIR")
	}
	dir := args[0]
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	env := applet.System([]string{"ssi"}, "")
	table := entries()
	root := applet.NewTree(env, table)
	if err := pages(dir, root, table); err != nil {
		return err
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var b bytes.Buffer
		env.Stdout = &b
		if err := applet.WriteCompletion(env, table, shell); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "ssi."+shell), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pages writes one page for the program, one for each command and one for each
// of their subcommands.
func pages(dir string, root *cobra.Command, table []applet.Entry) error {
	if err := write(dir, "ssi", overview(root, table)); err != nil {
		return err
	}
	for _, e := range table {
		if e.New == nil {
			continue
		}
		cmd, _, err := root.Find([]string{e.Name})
		if err != nil {
			return err
		}
		name := e.Name
		if e.NoLink || e.Stock { // the plain name is another page, or none
			name = "ssi-" + name
		}
		if err := write(dir, name, page(name, cmd)); err != nil {
			return err
		}
		for _, sub := range cmd.Commands() {
			if sub.Hidden {
				continue
			}
			if err := write(dir, name+"-"+sub.Name(), page(name+"-"+sub.Name(), sub)); err != nil {
				return err
			}
		}
	}
	return nil
}

func write(dir, name string, text []byte) error {
	return os.WriteFile(filepath.Join(dir, name+".1"), text, 0o644)
}
