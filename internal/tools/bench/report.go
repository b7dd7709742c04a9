package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// report is all that is printed.
type report struct {
	Date    time.Time `json:"date"`
	Command string    `json:"command"`
	Kernel  string    `json:"kernel"`
	CPUs    int       `json:"cpus"`
	CPU     string    `json:"cpu"`
	Go      string    `json:"go"`
	Version string    `json:"version"`
	Load    string    `json:"load"` // of the machine when the run began: what else it did
	Results []Result  `json:"results"`
}

func newReport(ctx context.Context, o options, binary string) *report {
	r := &report{Date: time.Now(), CPUs: runtime.NumCPU(), Go: runtime.Version()}
	r.Command = strings.Join(append([]string{"go run ./internal/tools/bench"}, o.args...), " ")
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "model name\t: "); ok {
			r.CPU, _, _ = strings.Cut(rest, "\n")
		}
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 0 {
			r.Load = f[0]
		}
	}
	if out, err := exec.CommandContext(ctx, binary, "version").Output(); err == nil {
		r.Version, _, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	}
	return r
}

// failed reports whether something could not be measured.
func (r *report) failed() bool {
	for i := range r.Results {
		if r.Results[i].Error != "" {
			return true
		}
	}
	return false
}

func heading() []string {
	return []string{"figure", "unit", "budget", "median", "worst 1%", "best", "n", "peer", "peer's", "ratio", "verdict"}
}

// rows is the table: a row per figure, and one more per further peer.
func (r *report) rows() [][]string {
	var rows [][]string
	for i := range r.Results {
		f := &r.Results[i]
		row := make([]string, len(heading()))
		row[0], row[1], row[2], row[10] = f.Figure, f.Unit, f.budget(), f.verdict()
		if f.Stats.N > 0 {
			row[3], row[4], row[5], row[6] = number(f.Stats.Median), number(f.Stats.Worst), number(f.Stats.Best), fmt.Sprint(f.Stats.N)
		}
		for j := range f.Peers {
			p := &f.Peers[j]
			if j > 0 {
				rows, row = append(rows, row), make([]string, len(heading()))
			}
			row[7] = p.Name
			if p.Error == "" {
				row[8], row[9] = number(p.Stats.Median), f.ratio(p)
			} else {
				row[8] = "not measured"
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// notes is what the table has no room for.
func (r *report) notes() []string {
	var notes []string
	for i := range r.Results {
		f := &r.Results[i]
		if f.Error != "" {
			notes = append(notes, f.Figure+" failed: "+f.Error)
		}
		if f.Note != "" {
			notes = append(notes, f.Figure+": "+f.Note)
		}
		for j := range f.Peers {
			if p := &f.Peers[j]; p.Error != "" {
				notes = append(notes, f.Figure+", "+p.Name+": "+p.Error)
			}
		}
	}
	return notes
}

func (r *report) machine() string {
	return fmt.Sprintf("%s; %s; %d CPUs, %s; load %s before; %s; %s",
		r.Date.UTC().Format("2006-01-02 15:04 UTC"), r.Kernel, r.CPUs, r.CPU, r.Load, r.Go, r.Version)
}

// text prints the table for people, with aligned columns.
func (r *report) text(w io.Writer) error {
	rows := append([][]string{heading()}, r.rows()...)
	width := make([]int, len(heading()))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	b.WriteString(r.machine() + "\n\n")
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if numeric(i) {
				line.WriteString(pad + cell + "  ")
			} else {
				line.WriteString(cell + pad + "  ")
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	for i, note := range r.notes() {
		if i == 0 {
			b.WriteByte('\n')
		}
		b.WriteString("* " + note + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// numeric reports whether a column holds numbers, which end at the same place.
func numeric(column int) bool { return column >= 3 && column <= 6 || column == 8 }

func (r *report) json(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// markdown prints the table for docs/benchmarks.md.
func (r *report) markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, by `%s`:\n\n", r.machine(), r.Command)
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(heading())
	rule := make([]string, len(heading()))
	for i := range rule {
		rule[i] = "---"
		if numeric(i) {
			rule[i] = "--:"
		}
	}
	line(rule)
	for _, row := range r.rows() {
		for i := range row {
			row[i] = strings.ReplaceAll(row[i], "|", `\|`)
		}
		line(row)
	}
	for i, note := range r.notes() {
		if i == 0 {
			b.WriteByte('\n')
		}
		b.WriteString("- " + note + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
