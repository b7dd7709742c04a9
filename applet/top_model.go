package applet

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ssi/internal/api"
	"ssi/internal/id"
)

// topModel is what top shows, without a terminal: listings and keys go in, lines
// come out.
type topModel struct {
	sort     string // one of topSorts
	reverse  bool
	args     bool // whole command lines
	idle     bool // hide what used no CPU
	filter   string
	user     string
	node     id.Node // 0: all
	selected int     // index into rows
	first    int     // first row on the screen

	at      time.Time
	list    *listing
	view    *psView
	usage   map[topKey]int64 // tenths of a percent
	before  map[topKey]topSample
	loads   map[id.Node]api.Load // of the listing before
	busy    map[id.Node]int64    // tenths of a percent of all CPUs
	rows    []*api.Process
	message string
}

// topKey names one process for ever.
type topKey struct {
	node  id.Node
	pid   id.PID
	start uint64
}

// topSample is what a process had used at an age, both in milliseconds.
type topSample struct{ cpu, age int64 }

type topLine struct {
	text    string
	reverse bool
	bold    bool
}

func topSorts() []string { return []string{"cpu", "mem", "time", "pid", "node", "user", "command"} }

func newTopModel() *topModel {
	return &topModel{sort: "cpu", before: map[topKey]topSample{}, loads: map[id.Node]api.Load{}}
}

func keyOf(p *api.Process) topKey { return topKey{p.Node, p.PID, p.StartTicks} }

// update takes in a listing made at a moment.
func (m *topModel) update(l *listing, at time.Time) {
	m.at, m.list = at, l
	view := newPSView(at, l)
	if m.view != nil {
		view.users = m.view.users // names cost a file each
	}
	m.view = view
	m.usage = make(map[topKey]int64, len(l.Processes))
	samples := make(map[topKey]topSample, len(l.Processes))
	for i := range l.Processes {
		p := &l.Processes[i]
		k := keyOf(p)
		now := topSample{cpu: p.UserTime + p.SystemTime, age: p.Age}
		was := m.before[k] // zero for a new one: the average of its life
		if passed := now.age - was.age; passed > 0 {
			m.usage[k] = max(0, now.cpu-was.cpu) * 1000 / passed
		}
		samples[k] = now
	}
	m.before = samples
	m.busy = map[id.Node]int64{}
	loads := map[id.Node]api.Load{}
	for _, load := range l.Loads {
		was := m.loads[load.Node]
		if total := int64(load.CPUTotal - was.CPUTotal); total > 0 {
			idle := min(max(0, int64(load.CPUIdle-was.CPUIdle)), total)
			m.busy[load.Node] = (total - idle) * 1000 / total
		}
		loads[load.Node] = load
	}
	m.loads = loads
	m.arrange()
}

// arrange chooses and sorts the rows; the selection stays on its process.
func (m *topModel) arrange() {
	if m.list == nil {
		return
	}
	var chosen topKey
	if p := m.current(); p != nil {
		chosen = keyOf(p)
	}
	m.rows = m.rows[:0]
	for i := range m.list.Processes {
		if p := &m.list.Processes[i]; m.shown(p) {
			m.rows = append(m.rows, p)
		}
	}
	slices.SortStableFunc(m.rows, func(a, b *api.Process) int {
		d := m.compare(a, b)
		if m.reverse {
			d = -d
		}
		return d
	})
	if i := slices.IndexFunc(m.rows, func(p *api.Process) bool { return keyOf(p) == chosen }); i >= 0 && m.selected > 0 {
		m.selected = i
	}
	m.selected = max(0, min(m.selected, len(m.rows)-1))
}

func (m *topModel) shown(p *api.Process) bool {
	switch {
	case m.node != 0 && p.Node != m.node,
		m.idle && m.usage[keyOf(p)] == 0,
		m.user != "" && m.view.user(p.EUID) != m.user && strconv.FormatUint(uint64(p.EUID), 10) != m.user:
		return false
	case m.filter == "":
		return true
	}
	return strings.Contains(strings.ToLower(p.Comm+" "+psArgs(m.view, p)), strings.ToLower(m.filter))
}

// compare puts the biggest first for what is used, the smallest for names.
func (m *topModel) compare(a, b *api.Process) int {
	switch m.sort {
	case "mem":
		return cmp.Compare(b.RSS, a.RSS)
	case "time":
		return cmp.Compare(b.UserTime+b.SystemTime, a.UserTime+a.SystemTime)
	case "pid":
		return cmp.Compare(a.PID, b.PID)
	case "node":
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(m.usage[keyOf(b)], m.usage[keyOf(a)]))
	case "user":
		return cmp.Compare(m.view.user(a.EUID), m.view.user(b.EUID))
	case "command":
		return cmp.Compare(a.Comm, b.Comm)
	}
	return cmp.Compare(m.usage[keyOf(b)], m.usage[keyOf(a)])
}

// current is the selected process, or nil.
func (m *topModel) current() *api.Process {
	if m.selected < len(m.rows) {
		return m.rows[m.selected]
	}
	return nil
}

// bar draws a share in tenths of a percent as width cells.
func bar(share int64, width int) string {
	n := int(min(max(share, 0), 1000)) * width / 1000
	return "[" + strings.Repeat("|", n) + strings.Repeat(" ", width-n) + "]"
}

// head is the lines over the table; nodes limits how many nodes they show.
func (m *topModel) head(nodes int) []topLine {
	running := 0
	for i := range m.list.Processes {
		if m.list.Processes[i].State == "R" {
			running++
		}
	}
	title := fmt.Sprintf("ssi top - %s  %d nodes, %d processes, %d running  sort %s", m.at.Format("15:04:05"), len(m.list.Loads), len(m.list.Processes), running, m.sort)
	if m.reverse {
		title += " reversed"
	}
	if m.filter != "" {
		title += fmt.Sprintf("  filter %q", m.filter)
	}
	if m.user != "" {
		title += "  user " + m.user
	}
	if m.node != 0 {
		title += fmt.Sprintf("  node %d", m.node)
	}
	lines := []topLine{{text: title, bold: true}}
	for i, l := range m.list.Loads {
		if i >= nodes && len(m.list.Loads) > nodes {
			lines = append(lines, topLine{text: fmt.Sprintf("… and %d more nodes", len(m.list.Loads)-i)})
			break
		}
		mem := int64(0)
		if l.MemTotal > 0 {
			mem = int64(float64(l.MemTotal-min(l.MemAvailable, l.MemTotal)) / float64(l.MemTotal) * 1000)
		}
		lines = append(lines, topLine{text: fmt.Sprintf("node %-3d cpu %s %5s%%  mem %s %5s%%  load %.2f %.2f %.2f  %d CPUs  %d tasks",
			l.Node, bar(m.busy[l.Node], 20), tenths(m.busy[l.Node]), bar(mem, 10), tenths(mem), l.Average[0], l.Average[1], l.Average[2], l.CPUs, l.Tasks)})
	}
	for _, e := range m.list.Errors {
		lines = append(lines, topLine{text: printable(e), bold: true})
	}
	return lines
}

const topHeader = "NODE     PID USER      PRI  NI    VIRT     RES S  %CPU  %MEM     TIME+ COMMAND"

func (m *topModel) row(p *api.Process) string {
	command := psComm(m.view, p)
	if m.args {
		command = psArgs(m.view, p)
	}
	name := m.view.user(p.EUID)
	if r := []rune(name); len(r) > 8 {
		name = string(r[:7]) + "+"
	}
	mem := int64(0)
	if total := m.view.memory[p.Node]; total > 0 {
		mem = int64(float64(p.RSS) / float64(total) * 1000)
	}
	priority := strconv.Itoa(int(p.Priority))
	if p.Priority < -99 {
		priority = "rt"
	}
	cpu := p.UserTime + p.SystemTime
	return fmt.Sprintf("%4d %7d %-8s  %3s %3d %7s %7s %s %5s %5s %9s %s", p.Node, p.PID, name, priority, p.Nice,
		amount(p.VSize), amount(p.RSS), p.State, tenths(m.usage[keyOf(p)]), tenths(mem),
		fmt.Sprintf("%d:%02d.%02d", cpu/60000, cpu/1000%60, cpu/10%100), command)
}

// amount prints bytes as top does: KiB, then with a letter.
func amount(b uint64) string {
	k := b >> 10
	switch {
	case k < 1000000:
		return strconv.FormatUint(k, 10)
	case k < 1000000<<10:
		return fmt.Sprintf("%.1fg", float64(k)/(1<<20))
	}
	return fmt.Sprintf("%.1ft", float64(k)/(1<<30))
}

// screen is the lines for a terminal of this size, exactly height of them; line
// is shown below the head: a prompt, or the message.
func (m *topModel) screen(width, height int, line string) []topLine {
	var lines []topLine
	if m.list == nil {
		lines = append(lines, topLine{text: "ssi top - asking the nodes …", bold: true})
	} else {
		lines = m.head(max(1, height/3))
	}
	lines = lines[:min(len(lines), max(0, height-3))]
	if line == "" {
		line = m.message
	}
	lines = append(lines, topLine{text: printable(line)}, topLine{text: topHeader, reverse: true})
	room := max(0, height-len(lines))
	m.first = max(0, min(m.first, m.selected))
	if m.selected >= m.first+room {
		m.first = m.selected - room + 1
	}
	for i := m.first; i < len(m.rows) && i < m.first+room; i++ {
		lines = append(lines, topLine{text: m.row(m.rows[i]), reverse: i == m.selected})
	}
	for len(lines) < height {
		lines = append(lines, topLine{})
	}
	lines = lines[:max(0, height)]
	for i := range lines {
		if r := []rune(lines[i].text); len(r) > width {
			lines[i].text = string(r[:width])
		}
	}
	return lines
}

// move changes the selection.
func (m *topModel) move(by int) {
	m.selected = max(0, min(m.selected+by, len(m.rows)-1))
}
