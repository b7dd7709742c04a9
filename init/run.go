// Package pid1 is the role init.
package pid1

import "log/slog"

// Options are the settings of the role.
type Options struct {
	Exe      string   // the binary that the roles run; default: this one
	Node     []string // arguments that make it the node role; default {"node"}
	Spawn    []string // arguments that make it the spawn role; default {"spawn"}
	Hostname string   // set if not empty and PID 1
	RunDir   string   // default /run/ssi
	Cgroup   string   // name of the cgroup; default "ssi"
	Log      *slog.Logger
}

// Run is the role init. As PID 1 it ends with the machine; else it returns
// the exit status for the process.
func Run(o Options) int { return 1 }
