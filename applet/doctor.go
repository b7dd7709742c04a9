package applet

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"ssi/internal/config"
	"ssi/internal/feature"
)

func newDoctor(env *Env) *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "examine what this machine has and lacks for ssi",
		Long: `doctor tries every feature of the kernel that ssi uses, and looks at the network,
the clock and the disk. Each line says ok, warn or missing, what was found, and
what to do. It changes nothing, needs no cluster, and sees most as root.

Lines of the area lab matter only for ssi lab.`,
		Example: `  ssi doctor
  ssi doctor --json | jq '.[] | select(.level != "ok")'`,
		Args: Args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := doctorOptions(cmd.Context(), env, path)
			if err != nil {
				return err
			}
			results := env.Probes(cmd.Context(), opts)
			if asJSON {
				err = PrintJSON(env.Stdout, results)
			} else {
				err = printResults(env, results)
			}
			if err != nil {
				return err
			}
			for _, r := range results {
				if r.Failed() {
					return StatusError(StatusFailure)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&path, "config", config.Path, "`FILE` with the configuration of this node")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the results as JSON")
	return Manual(cmd, "0 this machine can be a node\n1 something required is missing, or the configuration is wrong\n2 the command line makes no sense", "ssi-version(1)", "cluster(1)")
}

// doctorOptions gathers what the probes need from the configuration and, if it
// runs, from the daemon.
func doctorOptions(ctx context.Context, env *Env, path string) (feature.Options, error) {
	conf, err := config.Load(path)
	if err != nil {
		return feature.Options{}, err
	}
	opts := feature.Options{Listen: conf.Listen, StateDir: conf.StateDir}
	s, err := MeasuredStatus(ctx, env)
	if err != nil {
		return opts, nil //nolint:nilerr // no daemon: that is no finding
	}
	opts.Running = true
	for _, n := range s.Nodes {
		if n.Node != s.Self && n.ClockOffset != nil {
			opts.Clocks = append(opts.Clocks, feature.Clock{Name: n.Name, Offset: *n.ClockOffset})
		}
	}
	return opts, nil
}

func printResults(env *Env, results []feature.Result) error {
	tw := newTable(env.Stdout)
	for _, r := range results {
		text := r.Text
		if r.Todo != "" {
			text += ": " + r.Todo
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", r.Level, r.Area, r.Name, text)
	}
	return tw.Flush()
}
