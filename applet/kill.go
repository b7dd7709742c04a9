package applet

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/id"
)

// sigRTMin and sigRTMax are the real-time signals as the C library of Linux
// numbers them (signal(7)): it keeps 32 and 33 for itself.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// parseSignal reads a signal: "9", "KILL", "SIGKILL", "kill", "RTMIN+1", "0".
func parseSignal(s string) (int, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, n >= 0 && n <= sigRTMax
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	switch name {
	case "EXIT":
		return 0, true
	case "IO": // SIGPOLL is what package unix calls it
		return int(unix.SIGIO), true
	case "CLD":
		return int(unix.SIGCHLD), true
	case "IOT":
		return int(unix.SIGABRT), true
	}
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		return realTime(sigRTMin, rest)
	}
	if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		return realTime(sigRTMax, rest)
	}
	n := int(unix.SignalNum("SIG" + name))
	return n, n != 0
}

func realTime(base int, offset string) (int, bool) {
	if offset == "" {
		return base, true
	}
	n, err := strconv.Atoi(offset)
	n += base
	return n, err == nil && (offset[0] == '+' || offset[0] == '-') && n >= sigRTMin && n <= sigRTMax
}

// signalName is the name without SIG.
func signalName(n int) string {
	switch {
	case n == sigRTMin:
		return "RTMIN"
	case n == sigRTMax:
		return "RTMAX"
	case n > sigRTMin && n <= (sigRTMin+sigRTMax)/2:
		return fmt.Sprintf("RTMIN+%d", n-sigRTMin)
	case n > sigRTMin && n < sigRTMax:
		return fmt.Sprintf("RTMAX-%d", sigRTMax-n)
	}
	if name := unix.SignalName(syscall.Signal(n)); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(n)
}

// killOptions is a command line of kill, understood.
type killOptions struct {
	signal  int
	node    string
	timeout int
	list    bool
	table   bool
	help    bool
	rest    []string // PIDs, or what to translate with -l
}

// parse reads the arguments. Flags are read by hand because -9 and -TERM are no
// flags of the usual kind.
func (o *killOptions) parse(args []string) error {
	o.signal = int(unix.SIGTERM)
	given := false
	setSignal := func(s string) error {
		n, ok := parseSignal(s)
		if !ok {
			return Usagef("unknown signal %q; `kill -l` lists them", s)
		}
		o.signal, given = n, true
		return nil
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, v, attached := strings.Cut(arg, "=")
		switch {
		case arg == "--":
			o.rest = append(o.rest, args...)
			return nil
		case arg == "--help":
			o.help = true
		case arg == "-l" || arg == "-L" || name == "--list" || arg == "--table":
			o.list, o.table = true, o.table || arg == "-L" || arg == "--table"
			if attached {
				o.rest = append(o.rest, v)
			}
		case arg == "-s" || arg == "-n" || name == "--signal" || name == "--node" || name == "--timeout":
			if !attached || arg == "-s" || arg == "-n" {
				if len(args) == 0 {
					return Usagef("the option %s needs a value", arg)
				}
				v, args = args[0], args[1:]
			}
			if err := o.set(name, v, setSignal); err != nil {
				return err
			}
		case strings.HasPrefix(arg, "--"):
			return Usagef("unknown option %s", name)
		case len(arg) > 1 && arg[0] == '-' && !given && len(o.rest) == 0:
			if err := setSignal(arg[1:]); err != nil {
				return err
			}
		default:
			o.rest = append(o.rest, arg)
		}
	}
	return nil
}

func (o *killOptions) set(name, v string, setSignal func(string) error) error {
	switch name {
	case "--node":
		if v == "" {
			return Usagef("--node needs the number or name of a node")
		}
		o.node = v
		return nil
	case "--timeout":
		n, err := parseMillis(v)
		o.timeout = n
		return err
	}
	return setSignal(v)
}

func newKill(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kill [-s SIGNAL | -SIGNAL] [--node NODE] PID…",
		Short: "signal processes on any node",
		Long: `kill sends a signal, TERM by default, to processes wherever they run. It finds
the node by the process ID. A negative number is a process group, of the node
that its number belongs to.

The process IDs below 32768 are local to each node (init, the daemons of ssi,
and what ran before the node joined): they mean this node, or that of --node.

The kernel of the other node decides whether the caller may.

A signal is a name or a number: KILL, SIGKILL, 9, RTMIN+1; 0 sends nothing and only
checks. -SIGNAL and -n SIGNAL are the same as -s SIGNAL.`,
		Example: `  ssi kill 70001
  ssi kill -9 70001 103400
  ssi kill -HUP --node 2 412
  ssi kill -- -70001`,
		DisableFlagParsing: true,
	}
	// Parsed by killOptions; here for the manual.
	f := cmd.Flags()
	f.StringP("signal", "s", "TERM", "the `SIGNAL` to send")
	f.BoolP("list", "l", false, "list the names, or translate the numbers and names that follow")
	f.BoolP("table", "L", false, "list the names and numbers in a table")
	f.String("node", "", "the processes of this `NODE`, by number or name")
	f.Duration("timeout", 2*time.Second, "how long to wait for each node")
	f.Bool("help", false, "help for kill")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var o killOptions
		if err := o.parse(args); err != nil {
			return err
		}
		switch {
		case o.help:
			return cmd.Help()
		case o.list:
			return listSignals(env, &o)
		}
		return runKill(cmd, env, &o)
	}
	return Manual(cmd, "0 all were signalled\n1 at least one was not; stderr says which and why\n2 the command line makes no sense", "ps(1)", "where_pid(1)", "onnode(1)")
}

func runKill(cmd *cobra.Command, env *Env, o *killOptions) error {
	if len(o.rest) == 0 {
		return Usagef("no process is named; usage: %s", cmd.UseLine())
	}
	node, err := optionalNode(cmd.Context(), env, o.node)
	if err != nil {
		return err
	}
	req := api.SignalProcesses{Signal: o.signal, Timeout: o.timeout}
	for _, arg := range o.rest {
		n, err := strconv.ParseInt(arg, 10, 32)
		switch {
		case err != nil:
			return Usagef("%q is not a process ID", arg)
		case n == 0 || n == -1:
			return Usagef("%d stands for many processes of one machine; name the processes, or use `onnode NODE kill %s`", n, arg)
		}
		req.Targets = append(req.Targets, api.ProcessTarget{Node: node, PID: id.PID(n)})
	}
	res, err := Call[api.ProcessResults](cmd.Context(), env, api.ProcessSignal, req)
	if err != nil {
		return err
	}
	return reportResults(env, "kill", res)
}

// reportResults prints a line for each process that could not be reached.
func reportResults(env *Env, command string, res api.ProcessResults) error {
	failures := 0
	for _, r := range res.Results {
		if why := resultText(r); why != "" {
			failures++
			fmt.Fprintf(env.Stderr, "%s: (%d): %s\n", command, r.PID, why)
		}
	}
	if failures > 0 {
		return StatusError(StatusFailure)
	}
	return nil
}

// resultText is why r failed, in the words of the C library; "" if it did not.
func resultText(r api.ProcessResult) string {
	switch {
	case r.Error != "":
		return r.Error
	case r.Errno == 0:
		return ""
	}
	text := r.Errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// listSignals is -l and -L.
func listSignals(env *Env, o *killOptions) error {
	for _, arg := range o.rest {
		n, ok := parseSignal(arg)
		if !ok {
			if n, ok = statusSignal(arg); !ok {
				return Usagef("unknown signal %q; `kill -l` lists them", arg)
			}
		}
		text := signalName(n)
		if _, err := strconv.Atoi(arg); err != nil {
			text = strconv.Itoa(n)
		}
		if _, err := fmt.Fprintln(env.Stdout, text); err != nil {
			return err
		}
	}
	if len(o.rest) > 0 {
		return nil
	}
	if !o.table {
		var names []string
		for n := 1; n <= sigRTMax; n++ {
			if n < 32 || n >= sigRTMin {
				names = append(names, signalName(n))
			}
		}
		_, err := fmt.Fprintln(env.Stdout, strings.Join(names, " "))
		return err
	}
	tw := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	for n, col := 1, 0; n <= sigRTMax; n++ {
		if n == 32 || n == 33 {
			continue
		}
		fmt.Fprintf(tw, "%2d %s", n, signalName(n))
		if col++; col%6 == 0 || n == sigRTMax {
			fmt.Fprintln(tw)
		} else {
			fmt.Fprint(tw, "\t")
		}
	}
	return tw.Flush()
}

// statusSignal reads the exit status of a shell for a signal: 128+n.
func statusSignal(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n - 128, err == nil && n > 128 && n <= 128+sigRTMax
}
