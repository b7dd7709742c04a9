package applet

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newVersion(env *Env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "print the version",
		Long:    `version prints the version of this program, of Go, and of the kernel it runs on.`,
		Example: `  ssi version`,
		Args:    Args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			return printVersion(env, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return Manual(cmd, exitPlain, "ssi-doctor(1)")
}

func printVersion(env *Env, asJSON bool) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	kernel := unix.ByteSliceToString(uts.Release[:])
	if asJSON {
		return PrintJSON(env.Stdout, map[string]string{
			"version": env.Version, "go": strings.TrimPrefix(runtime.Version(), "go"),
			"os": runtime.GOOS, "arch": runtime.GOARCH, "kernel": kernel,
		})
	}
	_, err := fmt.Fprintf(env.Stdout, "%s %s (%s, %s/%s, kernel %s)\n", program, env.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH, kernel)
	return err
}
