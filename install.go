package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ssi/applet"
	"ssi/cluster"
	"ssi/init/install"
	"ssi/internal/config"
	"ssi/internal/feature"
)

//go:embed docs/ssi.toml
var exampleConfig []byte

// installEntries are the commands that put ssi onto a Debian machine.
func installEntries() []applet.Entry {
	entry := func(name, short string, command func(install.Env) *cobra.Command) applet.Entry {
		return applet.Entry{Name: name, Short: short, Group: applet.GroupTools, NoLink: true,
			New: func(*applet.Env) *cobra.Command { return command(installEnv()) }}
	}
	return []applet.Entry{
		entry("install", "make this Debian machine the first node of a cluster", install.Command),
		entry("uninstall", "undo what ssi install did", install.UninstallCommand),
	}
}

func installEnv() install.Env {
	env := install.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Terminal: term.IsTerminal(0),
		Config: exampleConfig, Missing: missingFeatures, Found: foundIn, Where: whereIn,
		Usage: func(text string) error { return applet.Usagef("%s", text) },
	}
	env.Links = applet.Links(table(), false)
	return env
}

// missingFeatures lists what the kernel of this machine lacks that a node needs.
func missingFeatures(ctx context.Context) (missing []string) {
	for _, r := range feature.Probe(ctx, feature.Options{Listen: config.Default().Listen, StateDir: config.Default().StateDir, Running: true}) {
		if r.Area == "kernel" && r.Failed() {
			missing = append(missing, r.Name+": "+r.Text)
		}
	}
	return missing
}

// whereIn is where other nodes will reach the machine whose system is in root.
func whereIn(root, told string, cfg config.Config) (string, error) {
	if root != "/" && told == "" && cfg.Addr == "" {
		return "", errors.New("the address of a system that does not run is not known: say it with --addr")
	}
	return ownAddr(told, cfg)
}

// foundIn founds a cluster in the root directory of a system, unless its
// configuration names a state directory that has one.
func foundIn(_ context.Context, root string, o install.FoundOptions) (string, error) {
	cfg, err := config.Load(filepath.Join(root, config.Path))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, cfg.StateDir)
	if _, err := os.Stat(filepath.Join(dir, "cluster.json")); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return "nothing: the cluster in " + dir + " is kept", err
	}
	ident, _, err := cluster.Found(cluster.NewCluster{Dir: dir, Name: o.Name, Node: 1, Profile: cfg.Profile, Addr: o.Addr})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("cluster %s (%s); this machine is node %d, at %s", ident.Name, ident.ID, ident.Node, o.Addr), nil
}
