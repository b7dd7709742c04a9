package main

import (
	"errors"

	"github.com/spf13/cobra"

	"ssi/applet"
	"ssi/lab"
)

// entries is every command that has a manual: those of applet, and what main
// adds to them for users.
func entries() []applet.Entry {
	return append(applet.Table(), applet.Entry{
		Name: "lab", Short: "run a cluster of several nodes on this machine", Group: applet.GroupTools, NoLink: true,
		New: func(*applet.Env) *cobra.Command {
			return lab.Command(lab.Env{Usage: func(text string) error { return errors.New(text) }, Exit: func(int) error { return nil }})
		},
	})
}
