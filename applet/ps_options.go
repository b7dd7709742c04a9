package applet

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"ssi/internal/api"
	"ssi/internal/id"
)

// psOptions is a command line of ps, understood.
type psOptions struct {
	node    string
	timeout int // milliseconds
	json    bool
	help    bool

	// Selection. Any of wanted selects; without one the forms below do.
	wanted   []func(*api.Process) bool
	pids     []id.PID // of -p; the only selection if onlyPIDs
	onlyPIDs bool
	all      bool // -e
	onTTY    bool // -a: with a terminal, no session leader
	noLeader bool // -d
	bsdA     bool // a: of all users
	bsdX     bool // x: without a terminal too
	bsd      bool // some option was written the BSD way
	running  bool
	negate   bool

	// Form.
	columns                    []psColumn // of -o
	full, extra, long, y, jobs bool       // -f -F -l -y -j
	bsdUser, bsdLong, bsdJobs  bool       // u l j
	forest, numeric            bool
	noHeaders                  bool
	wide                       int // how often w
	lineWidth                  int // --cols; 0: that of the terminal
	sort                       []psSort
	login                      bool
	table                      []psColumn
	lookupUser, lookupGroup    func(string) (uint32, error)
	callerTTY                  func() uint32
}

type psSort struct {
	column  psColumn
	reverse bool
}

func newPSOptions() *psOptions {
	return &psOptions{table: psColumns(), lookupUser: lookupUser, lookupGroup: lookupGroup, callerTTY: callerTTY}
}

func psUnsupported(option, instead string) error {
	if instead == "" {
		instead = "`ps --help` lists what is supported"
	}
	return fmt.Errorf("error: unsupported option %s; %s", option, instead)
}

// parse reads the arguments as procps does: with a dash the UNIX way, with two
// the GNU way, without one the BSD way.
func (o *psOptions) parse(args []string) error {
	for len(args) > 0 {
		arg := args[0]
		rest := args[1:]
		var err error
		switch {
		case strings.HasPrefix(arg, "--") && len(arg) > 2:
			rest, err = o.parseLong(arg[2:], rest)
		case strings.HasPrefix(arg, "-au") && strings.Trim(arg[3:], "xwfHh") == "" && strings.Contains(arg, "x"):
			rest, err = o.parseBSD(arg[1:], rest) // what people mean by -aux
		case strings.HasPrefix(arg, "-") && len(arg) > 1:
			rest, err = o.parseUNIX(arg[1:], rest)
		case arg != "" && arg[0] >= '0' && arg[0] <= '9':
			err = o.selectPIDs(arg)
		case arg == "" || arg == "-":
			err = fmt.Errorf("error: improper list: %q", arg)
		default:
			rest, err = o.parseBSD(arg, rest)
		}
		if err != nil {
			return err
		}
		args = rest
	}
	forms := 0
	for _, on := range []bool{o.full || o.extra || o.long, o.jobs, o.bsdUser, o.bsdLong, o.bsdJobs, len(o.columns) > 0} {
		if on {
			forms++
		}
	}
	if forms > 1 && (forms != 2 || len(o.columns) == 0 || !o.full) { // -fo adds nothing and is common
		return fmt.Errorf("error: conflicting format options")
	}
	if o.y && !o.long {
		return fmt.Errorf("error: the option -y goes with -l only")
	}
	return nil
}

// value is the argument of an option: the rest of its word, or the next word.
func value(option, attached string, rest []string) (string, []string, error) {
	if attached != "" {
		return attached, rest, nil
	}
	if len(rest) == 0 {
		return "", nil, fmt.Errorf("error: a value is missing after %s", option)
	}
	return rest[0], rest[1:], nil
}

func (o *psOptions) parseUNIX(letters string, rest []string) ([]string, error) {
	for i := 0; i < len(letters); i++ {
		c := letters[i]
		if strings.IndexByte("poCuUgGtsqnO", c) >= 0 {
			v, left, err := value("-"+string(c), letters[i+1:], rest)
			if err != nil {
				return nil, err
			}
			return left, o.unixList(c, v)
		}
		switch c {
		case 'e', 'A':
			o.all = true
		case 'a':
			o.onTTY = true
		case 'd':
			o.noLeader = true
		case 'N':
			o.negate = true
		case 'f':
			o.full = true
		case 'F':
			o.full, o.extra = true, true
		case 'l':
			o.long = true
		case 'y':
			o.y = true
		case 'j':
			o.jobs = true
		case 'H':
			o.forest = true
		case 'w':
			o.wide++
		case 'c':
		case 'L', 'T', 'm':
			return nil, psUnsupported("-"+string(c), "threads are not listed across nodes; use `onnode NODE ps -"+string(c)+"`")
		case 'V':
			return nil, psUnsupported("-V", "use `ssi version`")
		default:
			return nil, psUnsupported("-"+string(c), "")
		}
	}
	return rest, nil
}

func (o *psOptions) unixList(c byte, v string) error {
	switch c {
	case 'p', 'q':
		return o.selectPIDs(v)
	case 'o':
		return o.addColumns(v)
	case 'C':
		return o.selectComm(v)
	case 'u':
		return o.selectUsers(v, func(p *api.Process) uint32 { return p.EUID })
	case 'U':
		return o.selectUsers(v, func(p *api.Process) uint32 { return p.UID })
	case 'G':
		return o.selectGroups(v, func(p *api.Process) uint32 { return p.GID })
	case 'g':
		if strings.Trim(v, "0123456789, ") == "" {
			return o.selectNumbers("session", v, func(p *api.Process) id.PID { return p.SID })
		}
		return o.selectGroups(v, func(p *api.Process) uint32 { return p.EGID })
	case 's':
		return o.selectNumbers("session", v, func(p *api.Process) id.PID { return p.SID })
	case 't':
		return o.selectTTYs(v)
	}
	return psUnsupported("-"+string(c), "")
}

func (o *psOptions) parseBSD(letters string, rest []string) ([]string, error) {
	o.bsd = true
	for i := 0; i < len(letters); i++ {
		c := letters[i]
		if strings.IndexByte("poOkU", c) >= 0 {
			v, left, err := value(string(c), letters[i+1:], rest)
			if err != nil {
				return nil, err
			}
			switch c {
			case 'p':
				err = o.selectPIDs(v)
			case 'k':
				err = o.addSort(v)
			case 'U':
				err = o.selectUsers(v, func(p *api.Process) uint32 { return p.EUID })
			default:
				err = o.addColumns(v)
			}
			return left, err
		}
		switch c {
		case 'a':
			o.bsdA = true
		case 'x':
			o.bsdX = true
		case 'u':
			o.bsdUser = true
		case 'l':
			o.bsdLong = true
		case 'j':
			o.bsdJobs = true
		case 'f':
			o.forest = true
		case 'w':
			o.wide++
		case 'r':
			o.running = true
		case 'n':
			o.numeric = true
		case 'h':
			o.noHeaders = true
		case 'c':
		case 'T':
			return rest, o.selectTTYs("")
		case 't':
			return rest, o.selectTTYs(letters[i+1:])
		case 'e', 'E':
			return nil, psUnsupported(string(c), "the environment of processes is not sent across nodes; use `onnode NODE ps e`")
		case 'H', 'm':
			return nil, psUnsupported(string(c), "threads are not listed across nodes; use `onnode NODE ps "+string(c)+"`")
		default:
			return nil, psUnsupported(string(c), "")
		}
	}
	return rest, nil
}

func (o *psOptions) parseLong(word string, rest []string) ([]string, error) {
	name, v, attached := strings.Cut(word, "=")
	switch name {
	case "help":
		o.help = true
	case "json":
		o.json = true
	case "forest":
		o.forest = true
	case "no-headers", "no-heading", "noheaders", "noheading", "no-header":
		o.noHeaders = true
	case "headers", "header":
	case "deselect":
		o.negate = true
	case "node", "timeout", "sort", "format", "pid", "quick-pid", "ppid", "user", "User", "group", "Group", "sid", "tty", "cols", "columns", "width":
		if !attached {
			if len(rest) == 0 {
				return nil, fmt.Errorf("error: the option --%s needs a value", name)
			}
			v, rest = rest[0], rest[1:]
		}
		return rest, o.longValue(name, v)
	default:
		return nil, psUnsupported("--"+name, "")
	}
	if attached {
		return nil, fmt.Errorf("error: the option --%s takes no value", name)
	}
	return rest, nil
}

func (o *psOptions) longValue(name, v string) error {
	switch name {
	case "node":
		if v == "" {
			return fmt.Errorf("error: --node needs the number or name of a node")
		}
		o.node = v
	case "timeout":
		d, err := parseMillis(v)
		if err != nil {
			return err
		}
		o.timeout = d
	case "sort":
		return o.addSort(v)
	case "format":
		return o.addColumns(v)
	case "pid", "quick-pid":
		return o.selectPIDs(v)
	case "ppid":
		return o.selectNumbers("process", v, func(p *api.Process) id.PID { return p.PPID })
	case "user":
		return o.unixList('u', v)
	case "User":
		return o.unixList('U', v)
	case "group":
		return o.selectGroups(v, func(p *api.Process) uint32 { return p.EGID })
	case "Group":
		return o.unixList('G', v)
	case "sid":
		return o.unixList('s', v)
	case "tty":
		return o.selectTTYs(v)
	default:
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return fmt.Errorf("error: %q is not a number of columns", v)
		}
		o.lineWidth = n
	}
	return nil
}

// column finds a column by name.
func (o *psOptions) column(name string) (psColumn, bool) {
	for _, c := range o.table {
		for n := range strings.FieldsSeq(c.names) {
			if n == name {
				return c, true
			}
		}
	}
	return psColumn{}, false
}

// addColumns reads NAME[:WIDTH][=HEADER],….
func (o *psOptions) addColumns(v string) error {
	words := splitList(v)
	if len(words) == 0 {
		return fmt.Errorf("error: the list of columns is empty")
	}
	for _, w := range words {
		name, head, hasHead := strings.Cut(w, "=")
		name, width, hasWidth := strings.Cut(name, ":")
		c, ok := o.column(name)
		if !ok {
			return fmt.Errorf("error: unknown user-defined format specifier %q; `ps --help` lists them", name)
		}
		o.login = o.login || name == "luid"
		if hasWidth {
			n, err := strconv.Atoi(width)
			if err != nil || n < 1 || n > 4096 {
				return fmt.Errorf("error: %q is not a width (1 to 4096)", width)
			}
			c.width = n
		}
		if hasHead {
			c.head = head
			if !hasWidth {
				c.width = max(c.width, len(head))
			}
		}
		o.columns = append(o.columns, c)
	}
	return nil
}

// addSort reads [+|-]NAME,….
func (o *psOptions) addSort(v string) error {
	for _, w := range splitList(v) {
		name := strings.TrimLeft(w, "+-")
		c, ok := o.column(name)
		if !ok {
			return fmt.Errorf("error: unknown sort specifier %q; it is one of the names of -o", name)
		}
		o.login = o.login || name == "luid"
		o.sort = append(o.sort, psSort{column: c, reverse: strings.HasPrefix(w, "-")})
	}
	return nil
}

func (o *psOptions) selectPIDs(v string) error {
	pids, err := parsePIDs(v)
	if err != nil {
		return fmt.Errorf("error: %w", err)
	}
	o.onlyPIDs = len(o.wanted) == 0
	o.pids = append(o.pids, pids...)
	if len(o.pids) > api.MaxPIDs {
		return fmt.Errorf("error: more than %d processes named", api.MaxPIDs)
	}
	return nil
}

func parsePIDs(v string) ([]id.PID, error) {
	var out []id.PID
	for _, w := range splitList(v) {
		n, err := strconv.ParseInt(w, 10, 32)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a process ID", w)
		}
		out = append(out, id.PID(n))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the list of process IDs is empty")
	}
	return out, nil
}

func (o *psOptions) want(f func(*api.Process) bool) {
	o.onlyPIDs = false
	o.wanted = append(o.wanted, f)
}

func (o *psOptions) selectNumbers(what, v string, of func(*api.Process) id.PID) error {
	pids, err := parsePIDs(v)
	if err != nil {
		return fmt.Errorf("error: %s: %w", what, err)
	}
	for _, want := range pids {
		o.want(func(p *api.Process) bool { return of(p) == want })
	}
	return nil
}

func (o *psOptions) selectComm(v string) error {
	for _, name := range splitList(v) {
		o.want(func(p *api.Process) bool { return p.Comm == name || len(name) > 15 && p.Comm == name[:15] })
	}
	return nil
}

func (o *psOptions) selectUsers(v string, of func(*api.Process) uint32) error {
	return o.selectIDs("user", v, o.lookupUser, of)
}

func (o *psOptions) selectGroups(v string, of func(*api.Process) uint32) error {
	return o.selectIDs("group", v, o.lookupGroup, of)
}

func (o *psOptions) selectIDs(what, v string, lookup func(string) (uint32, error), of func(*api.Process) uint32) error {
	for _, w := range splitList(v) {
		want, err := lookup(w)
		if err != nil {
			return fmt.Errorf("error: %s name does not exist: %q", what, w)
		}
		o.want(func(p *api.Process) bool { return of(p) == want })
	}
	return nil
}

// selectTTYs selects by names ("pts/3", "tty1", "1", "/dev/pts/3"); "-" is no
// terminal, and an empty list is the caller's.
func (o *psOptions) selectTTYs(v string) error {
	if v == "" {
		nr := o.callerTTY()
		o.want(func(p *api.Process) bool { return nr != 0 && p.TTYNr == nr })
		return nil
	}
	for _, w := range splitList(v) {
		name := strings.TrimPrefix(w, "/dev/")
		o.want(func(p *api.Process) bool {
			if name == "-" || name == "?" {
				return p.TTYNr == 0
			}
			return p.TTY == name || p.TTY == "tty"+name || p.TTY == "pts/"+name
		})
	}
	return nil
}

func lookupUser(name string) (uint32, error) {
	if u, err := user.Lookup(name); err == nil {
		name = u.Uid
	}
	v, err := strconv.ParseUint(name, 10, 32)
	return uint32(v), err
}

func lookupGroup(name string) (uint32, error) {
	if g, err := user.LookupGroup(name); err == nil {
		name = g.Gid
	}
	v, err := strconv.ParseUint(name, 10, 32)
	return uint32(v), err
}
