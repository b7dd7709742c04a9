package applet

import (
	"bufio"
	"cmp"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ssi/internal/api"
	"ssi/internal/id"
)

const psLong = `ps lists the processes of all nodes, in the forms of the ps of Linux (procps),
with the column NODE before them. Without a selection it lists what runs on the
terminal of the caller, on this node, under the caller's user.

Options are written the UNIX way (-ef), the BSD way (aux) or the GNU way
(--sort=-rss), and may be mixed as with procps.

Selection; several add up:
  -e, -A, ax         all processes
  -a                 all with a terminal, without session leaders
  -d                 all but session leaders
  a, x               of all users; without a terminal too
  -p, p, --pid LIST  by process ID; those of window 0 (below 32768) on every node
  --ppid LIST        by parent
  -u, U, --user LIST by effective user; -U, --User by real user
  -G, --Group LIST   by real group; --group by effective group
  -C LIST            by name of the program
  -s, --sid LIST     by session
  -t, t, --tty LIST  by terminal; T is the caller's
  r                  only running ones
  -N, --deselect     all but the selected
  --node NODE        only this node

Form:
  -f, -F, -l, -ly, -j, u, l, j   as procps
  -o, o, --format NAME[:WIDTH][=HEADER],…
                     these columns; a header "" is left out: -o pid=,node=
  -H, f, --forest    the tree of parents and children, for each node
  --sort, k [+|-]NAME,…
                     order; the default is node and process ID
  --no-headers, h    no headers
  -w, w              132 columns; twice: any width
  --cols N           width of the output
  n                  numbers instead of names of users
  --json             JSON: {"processes": [...], "loads": [...], "errors": [...]}
  --timeout DURATION wait so long for each node (default 2s)

Columns: node (enode) pid ppid pgid sid tpgid user euser ruser group rgroup uid
ruid gid rgid luid comm ucmd args cmd tty tname stat s f ni pri opri priority
rtprio cls policy psr nlwp minflt majflt vsz rss sz %cpu c %mem start_time stime
start bsdstart lstart etime etimes time bsdtime cputimes.

A node that does not answer costs its processes and a line on stderr. Names of
users are those of this node. WCHAN and ADDR are always "-". Threads and
environments are not listed: onnode NODE ps -L does.`

func newPS(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ps [OPTION…]",
		Short: "list the processes of all nodes",
		Long:  psLong,
		Example: `  ssi ps aux
  ssi ps -ef --node 2
  ssi ps -e -o node,pid,user,%cpu,args --sort=-%cpu
  ssi ps -o node= -p 70001
  ssi ps axf`,
		DisableFlagParsing: true,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o := newPSOptions()
		if err := o.parse(args); err != nil {
			return err
		}
		if o.help {
			return cmd.Help()
		}
		return runPS(cmd, env, o)
	}
	return Manual(cmd, "0 success\n1 nothing was selected, a node did not answer, or an option is not supported", "ps(1)", "top(1)", "kill(1)", "where_pid(1)", "onnode(1)")
}

func runPS(cmd *cobra.Command, env *Env, o *psOptions) error {
	node, err := optionalNode(cmd.Context(), env, o.node)
	if err != nil {
		return err
	}
	local := o.isDefault() && node == 0
	req := api.ListProcesses{Node: node, Local: env.LocalView() || local, Timeout: o.timeout, Login: o.login}
	if o.onlyPIDs && !o.negate && !o.all && !o.onTTY && !o.noLeader {
		req.PIDs = o.pids
	}
	l, err := listProcesses(cmd.Context(), env, req)
	if err != nil {
		return err
	}
	keep := o.filter(uint32(os.Geteuid()), local)
	l.Processes = slices.DeleteFunc(l.Processes, func(p api.Process) bool { return !keep(&p) })
	view := newPSView(env.Now(), l)
	view.plain = o.numeric
	rows := o.order(view, l.Processes)
	if o.json {
		sorted := make([]api.Process, len(rows))
		for i, p := range rows {
			sorted[i] = *p
		}
		l.Processes = sorted
		if err := PrintJSON(env.Stdout, l); err != nil {
			return err
		}
	} else if err := o.print(env.Stdout, view, rows, o.form(local), outputWidth(env, o)); err != nil {
		return err
	}
	if err := l.report(env, "ps"); err != nil {
		return err
	}
	if len(rows) == 0 {
		return StatusError(StatusFailure)
	}
	return nil
}

// isDefault reports whether no option selects.
func (o *psOptions) isDefault() bool {
	return len(o.wanted) == 0 && len(o.pids) == 0 && !o.all && !o.onTTY && !o.noLeader && !o.bsdA && !o.bsdX && !o.negate
}

// filter is the selection as one function.
func (o *psOptions) filter(euid uint32, local bool) func(*api.Process) bool {
	tty := uint32(0)
	if !o.all && !o.bsdA {
		tty = o.callerTTY()
	}
	isDefault := o.isDefault()
	chosen := func(p *api.Process) bool {
		switch {
		case isDefault:
			return p.EUID == euid && (p.TTYNr == tty || !local)
		case o.all, o.bsdA && o.bsdX:
			return true
		case o.noLeader && p.SID != p.PID,
			o.onTTY && p.SID != p.PID && p.TTYNr != 0,
			o.bsdA && p.TTYNr != 0,
			o.bsdX && p.EUID == euid:
			return true
		}
		return slices.Contains(o.pids, p.PID) || slices.ContainsFunc(o.wanted, func(f func(*api.Process) bool) bool { return f(p) })
	}
	return func(p *api.Process) bool {
		return chosen(p) != o.negate && (!o.running || p.State == "R" || p.State == "D")
	}
}

// form is the columns to print; local leaves out the node, which is this one.
func (o *psOptions) form(local bool) []psColumn {
	if len(o.columns) > 0 {
		return o.columns
	}
	names := "pid tname time ucmd"
	switch {
	case o.long:
		names = "f s uid pid ppid c opri ni addr sz wchan tname time ucmd"
		if o.full {
			names = "f s uid_hack pid ppid c opri ni addr sz wchan stime tname time cmd"
		}
		if o.y {
			names = strings.Replace(strings.TrimPrefix(names, "f "), "addr", "rss", 1)
		}
	case o.extra:
		names = "uid_hack pid ppid c sz rss psr stime tname time cmd"
	case o.full:
		names = "uid_hack pid ppid c stime tname time cmd"
	case o.jobs:
		names = "pid pgid sid tname time ucmd"
	case o.bsdUser:
		names = "user pid %cpu %mem vsz rss tname stat start_time bsdtime args"
	case o.bsdLong:
		names = "f uid pid ppid pri ni vsz rss wchan stat tname bsdtime args"
	case o.bsdJobs:
		names = "ppid pid pgid sid tname tpgid stat uid bsdtime args"
	case o.bsd:
		names = "pid tname stat bsdtime args"
	}
	if !local {
		names = "node " + names
	}
	var out []psColumn
	for name := range strings.FieldsSeq(names) {
		c, _ := o.column(name)
		out = append(out, c)
	}
	return out
}

// order sorts the processes and, for a forest, puts children below parents.
func (o *psOptions) order(c *psView, ps []api.Process) []*api.Process {
	rows := make([]*api.Process, len(ps))
	for i := range ps {
		rows[i] = &ps[i]
	}
	if len(o.sort) > 0 {
		slices.SortStableFunc(rows, func(a, b *api.Process) int {
			for _, s := range o.sort {
				d := s.column.compare(c, a, b)
				if s.reverse {
					d = -d
				}
				if d != 0 {
					return d
				}
			}
			return 0
		})
	}
	if o.forest {
		rows = forest(c, rows)
	}
	return rows
}

func (col *psColumn) compare(c *psView, a, b *api.Process) int {
	if col.num != nil {
		return cmp.Compare(col.num(c, a), col.num(c, b))
	}
	return cmp.Compare(col.text(c, a), col.text(c, b))
}

// forest puts the children of each process below it and draws the tree into
// c.prefix. A process whose parent is not among rows is a root.
func forest(c *psView, rows []*api.Process) []*api.Process {
	type key struct {
		node id.Node
		pid  id.PID
	}
	present := map[key]bool{}
	for _, p := range rows {
		present[key{p.Node, p.PID}] = true
	}
	children := map[key][]*api.Process{}
	var roots []*api.Process
	for _, p := range rows {
		if parent := (key{p.Node, p.PPID}); present[parent] && p.PPID != p.PID {
			children[parent] = append(children[parent], p)
		} else {
			roots = append(roots, p)
		}
	}
	c.prefix = map[*api.Process]string{}
	out := make([]*api.Process, 0, len(rows))
	seen := map[*api.Process]bool{} // the list is not of one moment: parents could form a ring
	var walk func(p *api.Process, indent string)
	walk = func(p *api.Process, indent string) {
		seen[p] = true
		out = append(out, p)
		below := slices.DeleteFunc(children[key{p.Node, p.PID}], func(c *api.Process) bool { return seen[c] })
		for i, child := range below {
			c.prefix[child] = indent + " \\_ "
			next := indent + " |  "
			if i == len(below)-1 {
				next = indent + "    "
			}
			walk(child, next)
		}
	}
	for _, p := range roots {
		walk(p, "")
	}
	for _, p := range rows { // the rings
		if !seen[p] {
			walk(p, "")
		}
	}
	return out
}

// outputWidth is how many columns a line may have; 0 is any number.
func outputWidth(env *Env, o *psOptions) int {
	switch {
	case o.wide > 1:
		return 0
	case o.lineWidth > 0:
		return o.lineWidth
	}
	width := 0
	if f, ok := env.Stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		width, _, _ = term.GetSize(int(f.Fd()))
	} else if n, err := strconv.Atoi(env.Getenv("COLUMNS")); err == nil && n > 0 {
		width = n
	}
	if o.wide == 1 && width > 0 {
		return max(width, 132)
	}
	return width
}

// print writes the table.
func (o *psOptions) print(w io.Writer, c *psView, rows []*api.Process, columns []psColumn, width int) error {
	out := bufio.NewWriter(w)
	line := psLine{width: width}
	headers := !o.noHeaders && slices.ContainsFunc(columns, func(c psColumn) bool { return c.head != "" })
	if headers {
		for i, col := range columns {
			line.add(&col, col.head, i == len(columns)-1)
		}
		line.flush(out)
	}
	for _, p := range rows {
		for i := range columns {
			col := &columns[i]
			last := i == len(columns)-1
			text := ""
			if col.text != nil {
				text = col.text(c, p)
			} else {
				text = strconv.FormatInt(col.num(c, p), 10)
			}
			line.add(col, text, last)
		}
		line.flush(out)
	}
	return out.Flush()
}

// psLine lays out one line. A text wider than its column pushes the next ones,
// which give up padding until they are in place again, as procps does.
type psLine struct {
	width int // limit, 0: none
	b     []byte
	used  int // cells written
	want  int // cells that the columns so far should take
}

func (l *psLine) add(col *psColumn, text string, last bool) {
	if l.want > 0 {
		l.b = append(l.b, ' ')
		l.used++
		l.want++
	}
	n := cells(text)
	if col.cut && !last && n > col.width {
		r := []rune(text)
		text, n = string(r[:col.width]), col.width
		if col.width == 8 && col.left { // a name: mark that it is cut
			text = string(r[:7]) + "+"
		}
	}
	l.want += col.width
	pad := max(0, l.want-l.used-n)
	if !col.left {
		l.pad(pad)
	}
	l.b = append(l.b, text...)
	l.used += n
	if col.left && !last {
		l.pad(pad)
	}
}

func (l *psLine) pad(n int) {
	for range n {
		l.b = append(l.b, ' ')
	}
	l.used += n
}

func (l *psLine) flush(w *bufio.Writer) {
	b := l.b
	if l.width > 0 && l.used > l.width {
		b = []byte(string([]rune(string(b))[:min(l.width, cells(string(b)))]))
	}
	_, _ = w.Write(append(b, '\n')) // Flush returns the error
	l.b, l.used, l.want = l.b[:0], 0, 0
}

// cells is how many characters s has; printable left no control characters.
func cells(s string) int { return len([]rune(s)) }

// callerTTY is the terminal of this process as in stat(5), 0 if there is none.
func callerTTY() uint32 {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), " ")
	f := strings.Fields(rest) // state ppid pgrp session tty_nr
	if len(f) < 5 {
		return 0
	}
	nr, err := strconv.ParseInt(f[4], 10, 64)
	if err != nil {
		return 0
	}
	return uint32(nr)
}
