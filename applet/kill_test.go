package applet

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"ssi/internal/api"
)

func TestKill(t *testing.T) {
	d, run := startDaemon(t)
	for _, c := range []struct {
		words   string
		signal  int
		targets []api.ProcessTarget
		errOut  string
		status  int
	}{
		{"kill 70000", 15, []api.ProcessTarget{{PID: 70000}}, "", 0},
		{"kill -9 70000 40000", 9, []api.ProcessTarget{{PID: 70000}, {PID: 40000}}, "", 0},
		{"kill -s HUP 70000", 1, []api.ProcessTarget{{PID: 70000}}, "", 0},
		{"kill -SIGRTMIN+2 70000", 36, []api.ProcessTarget{{PID: 70000}}, "", 0},
		{"kill --signal=int --node 3 7", 2, []api.ProcessTarget{{Node: 3, PID: 7}}, "", 0},
		{"kill -0 70000", 0, []api.ProcessTarget{{PID: 70000}}, "", 0},
		{"kill -TERM -- -70000", 15, []api.ProcessTarget{{PID: -70000}}, "", 0},
		{"kill -15 -70000", 15, []api.ProcessTarget{{PID: -70000}}, "", 0},
		{"kill 70404", 15, []api.ProcessTarget{{PID: 70404}}, "kill: (70404): No such process\n", 1},
		{"kill 70001 70000 70404", 15, []api.ProcessTarget{{PID: 70001}, {PID: 70000}, {PID: 70404}}, "kill: (70001): Operation not permitted\nkill: (70404): No such process\n", 1},
		{"kill 140000", 15, []api.ProcessTarget{{PID: 140000}}, "kill: (140000): node 4: did not answer within 2s\n", 1},
	} {
		d.signals = nil
		out, errOut, status := run(strings.Fields(c.words)...)
		if out != "" || errOut != c.errOut || status != c.status {
			t.Errorf("%s: %q %q %d", c.words, out, errOut, status)
		}
		if len(d.signals) != 1 || d.signals[0].Signal != c.signal || len(d.signals[0].Targets) != len(c.targets) {
			t.Errorf("%s: asked %+v", c.words, d.signals)
			continue
		}
		for i, want := range c.targets {
			if got := d.signals[0].Targets[i]; got != want {
				t.Errorf("%s: target %+v, want %+v", c.words, got, want)
			}
		}
	}
	for words, want := range map[string]string{
		"kill": "no process is named", "kill x": "not a process ID", "kill -FOO 1": "unknown signal", "kill -1": "no process is named", "kill -s": "needs a value",
		"kill -9 -1": "stands for many", "kill 0": "stands for many", "kill --what 1": "unknown option", "kill -99 1": "unknown signal", "kill --node= 1": "--node needs",
	} {
		d.signals = nil
		if out, errOut, status := run(strings.Fields(words)...); out != "" || !strings.Contains(errOut, want) || status != 2 || len(d.signals) != 0 {
			t.Errorf("%s: %q %q %d, asked %v", words, out, errOut, status, d.signals)
		}
	}
}

func TestSignalNames(t *testing.T) {
	_, run := startDaemon(t)
	out, _, status := run("kill", "-l")
	if status != 0 {
		t.Fatal(status)
	}
	shell, err := exec.Command("bash", "-c", "kill -l").Output()
	if err != nil {
		t.Skipf("needs bash to compare with: %v", err)
	}
	want := map[int]string{}
	f := strings.Fields(string(shell)) // "1)" "SIGHUP" …
	for i := 0; i+1 < len(f); i += 2 {
		n, err := strconv.Atoi(strings.TrimSuffix(f[i], ")"))
		if err != nil {
			t.Fatal(err)
		}
		want[n] = strings.TrimPrefix(f[i+1], "SIG")
	}
	names := strings.Fields(out)
	if len(names) != len(want) {
		t.Errorf("%d names, bash has %d", len(names), len(want))
	}
	for n, name := range want {
		if got := signalName(n); got != name {
			t.Errorf("signal %d is %s, bash says %s", n, got, name)
		}
		for _, s := range []string{name, "SIG" + name, strings.ToLower(name), strconv.Itoa(n)} {
			if got, ok := parseSignal(s); !ok || got != n {
				t.Errorf("%q is %d, %v, want %d", s, got, ok, n)
			}
		}
	}
	for words, want := range map[string]string{"kill -l 9": "KILL\n", "kill -l KILL": "9\n", "kill -l 137 SIGHUP": "KILL\n1\n"} {
		if out, _, _ := run(strings.Fields(words)...); out != want {
			t.Errorf("%s: %q, want %q", words, out, want)
		}
	}
	if out, _, _ := run("kill", "-L"); !strings.Contains(out, " 9 KILL") {
		t.Errorf("kill -L:\n%s", out)
	}
	for _, bad := range []string{"", "x", "65", "-1", "RTMIN+31", "RTMAX+1", "RTMIN1", "SIGSIGKILL"} {
		if n, ok := parseSignal(bad); ok {
			t.Errorf("%q was taken for signal %d", bad, n)
		}
	}
}
