package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func testReport() *report {
	return &report{
		Date: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Command: "bench -ssi ./ssi", Kernel: "Linux 6.1.0", CPUs: 2, CPU: "a CPU", Go: "go1", Version: "ssi 1", Load: "0.00",
		Results: []Result{
			{Figure: "call, 100 B", Unit: us, Budgets: []Budget{{Limit: 60}}, Stats: Stats{N: 20, Median: 50, Worst: 90, Best: 40},
				Peers: []Peer{{Name: "TLS", Stats: Stats{Median: 25}}, {Name: "TCP | raw", Error: "none here"}}},
			{Figure: "lost", Error: "it broke"},
			{Figure: "noted", Unit: perSec, Stats: Stats{N: 1, Median: 7, Worst: 7, Best: 7}, Note: "by hand"},
		},
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	if err := testReport().text(&b); err != nil {
		t.Fatal(err)
	}
	want := `2026-01-02 03:04 UTC; Linux 6.1.0; 2 CPUs, a CPU; load 0.00 before; go1; ssi 1

figure       unit  budget  median  worst 1%  best   n  peer             peer's  ratio      verdict
call, 100 B  µs    <= 60       50        90    40  20  TLS                  25  2x worse   ok
                                                       TCP | raw  not measured
lost                                                                                       FAILED
noted        /s                 7         7     7   1                                      -

* call, 100 B, TCP | raw: none here
* lost failed: it broke
* noted: by hand
`
	if got := b.String(); squeeze(got) != squeeze(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	var at int
	for i, line := range strings.Split(b.String(), "\n")[2:4] { // columns are aligned
		if pos := strings.Index(line, []string{"peer", "TLS"}[i]); i == 0 {
			at = pos
		} else if len([]rune(line[:pos])) != at {
			t.Errorf("the column begins at %d and at %d", at, pos)
		}
	}
}

// squeeze makes runs of blanks one.
func squeeze(s string) string {
	var lines []string
	for line := range strings.Lines(s) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	if err := testReport().markdown(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"| call, 100 B | µs | <= 60 | 50 | 90 | 40 | 20 | TLS | 25 | 2x worse | ok |", `TCP \| raw`, "- noted: by hand", "bench -ssi ./ssi"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	bars := -1
	for line := range strings.Lines(text) {
		if n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|"); strings.HasPrefix(line, "|") {
			if bars >= 0 && n != bars {
				t.Errorf("%d columns in %q, %d before", n, line, bars)
			}
			bars = n
		}
	}
}

func TestJSON(t *testing.T) {
	var b strings.Builder
	if err := testReport().json(&b); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || len(back.Results) != 3 || back.Results[0].Peers[0].Stats.Median != 25 {
		t.Errorf("%+v: %v", back, err)
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"-ssi", "x", "-only", "ics,bulk", "-json"})
	if err != nil || o.ssi != "x" || len(o.only) != 2 || !o.json {
		t.Errorf("%+v: %v", o, err)
	}
	for _, args := range [][]string{{"-only", "nothing"}, {"rest"}, {"-nonsense"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
