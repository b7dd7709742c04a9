package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"ssi/cluster/member"
	"ssi/internal/id"
	"ssi/internal/netconf"
	"ssi/vproc/procfs"
)

// procCluster is the other nodes as /proc wants them.
type procCluster struct {
	processCluster

	mu    sync.Mutex
	view  *member.View // of now
	now   *procfs.Cluster
	level levelList
	links linkEvents
	where *places
}

// Watch is the cluster for /proc, and a channel that is closed when the nodes change.
func (p *procCluster) Watch() (*procfs.Cluster, <-chan struct{}) {
	view, changed := p.c.Members().Get()
	p.mu.Lock()
	defer p.mu.Unlock()
	hidden := p.where.ownStandIns()
	news := p.links.look(p.c.Registry().Stale())
	if p.level.look(loadLevelPath, time.Now()) || news || p.view != view || !slices.Equal(p.now.Hidden, hidden) { // it is asked far more often than anything changes
		p.view = view
		p.now = &procfs.Cluster{Self: uint32(p.c.Self()), Files: append(clusterFiles(view, p.c.Self(), p.links.all), p.level.file), Hidden: hidden}
		for _, n := range upNodes(view) {
			p.now.Up = append(p.now.Up, uint32(n))
		}
	}
	return p.now, changed
}

const (
	// loadLevelPath is the programs that are to run on the least loaded node when they are executed, a name a
	// line, as in OpenSSI. It is the administrator's, and of each node. /proc/cluster/loadlevellist shows it;
	// nothing else reads it yet.
	loadLevelPath = "/etc/ssi/loadlevellist"
	maxLoadLevel  = 64 << 10 // bytes of it
	loadLevelAge  = time.Second
)

// levelList is that file as it was a moment ago.
type levelList struct {
	file *procfs.File
	at   time.Time
}

// look reads the file again if that was loadLevelAge ago, and reports whether it changed. A node
// without the file levels nothing: then it is empty.
func (l *levelList) look(path string, now time.Time) (changed bool) {
	if l.file != nil && now.Sub(l.at) < loadLevelAge {
		return false
	}
	l.at = now
	content := regularFile(path, maxLoadLevel)
	if l.file != nil && bytes.Equal(l.file.Content, content) {
		return false
	}
	l.file = &procfs.File{Name: "loadlevellist", Content: content}
	return true
}

// regularFile is what a regular file has, up to a limit in bytes; nothing if there is none.
func regularFile(path string, limit int64) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would block
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil
	}
	return b
}

// maxEvents is how many transitions and how many changes of links /proc/cluster/events has.
const maxEvents = 100

// clusterFiles is the files of /proc/cluster: tables with a head, as
// /proc/swaps is one, columns divided by blanks, and what may contain blanks last.
func clusterFiles(v *member.View, self id.Node, links []nodeLinkEvent) []*procfs.File {
	return []*procfs.File{
		{Name: "self", Content: fmt.Appendf(nil, "%d\n", self)},
		{Name: "nodes", Content: columns("NODE\tSTATE\tINIT\tNAME\tADDRESS\tSINCE\tCAUSE", func(row func(cells ...any)) {
			for _, n := range v.Nodes {
				init := "-"
				if n.Node == v.Init {
					init = "init"
				}
				row(n.Node, n.State, init, orDash(n.Info.Name), orDash(n.Info.Addr), stamp(n.SinceWall), orDash(n.Cause))
			}
		})},
		{Name: "events", Content: columns("EPOCH\tTIME\tNODE\tFROM\tTO\tCAUSE", func(row func(cells ...any)) {
			links := links[max(0, len(links)-maxEvents):]
			for _, t := range v.History[max(0, len(v.History)-maxEvents):] {
				for len(links) > 0 && links[0].Wall < t.Wall {
					linkRow(row, links[0])
					links = links[1:]
				}
				if t.Init {
					row(t.Epoch, stamp(t.Wall), t.Node, "-", "init", orDash(t.Cause))
				} else {
					row(t.Epoch, stamp(t.Wall), t.Node, t.From, t.To, orDash(t.Cause))
				}
			}
			for _, l := range links {
				linkRow(row, l)
			}
		})},
	}
}

// linkRow tells of a link; its time is that of its node.
func linkRow(row func(cells ...any), l nodeLinkEvent) {
	from, to, what := "up", "down", "link "+l.Link
	if l.State == netconf.StateUp {
		from, to = to, from
	}
	if l.Master != "" {
		what += " of " + l.Master
	}
	if to != l.State {
		what += ": " + l.State
	}
	row("-", stamp(l.Wall), l.node, from, to, what)
}

// stamp is a wall clock in nanoseconds since 1970 as RFC 3339 has it, in UTC.
func stamp(wall int64) string { return time.Unix(0, wall).UTC().Format(time.RFC3339) }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func columns(head string, fill func(row func(cells ...any))) []byte {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, head)
	fill(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				_, _ = fmt.Fprint(w, "\t")
			}
			_, _ = fmt.Fprint(w, c)
		}
		_, _ = fmt.Fprintln(w)
	})
	_ = w.Flush() // into memory
	return b.Bytes()
}
