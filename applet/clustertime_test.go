package applet

import (
	"testing"
	"time"

	"ssi/internal/api"
)

func TestTimeText(t *testing.T) {
	for _, c := range []struct {
		status api.TimeStatus
		want   string
	}{
		{api.TimeStatus{Source: "local", Stratum: 10, Disciplined: true, Serving: true}, "its own clock is the reference, stratum 10"},
		{api.TimeStatus{Source: "local", Stratum: 10, Disciplined: true, ServeError: "port 123: in use"},
			"its own clock is the reference, stratum 10; other nodes cannot ask: port 123: in use"},
		{api.TimeStatus{Stratum: 16, Refused: "no server answers", Why: "ssi is not the init of this machine"},
			"follows nothing: no server answers; not set by ssi: ssi is not the init of this machine"},
		{api.TimeStatus{Stratum: 16, Disciplined: true}, "follows nothing"},
		{api.TimeStatus{Source: "10.0.0.1:123", Stratum: 11, Offset: -400 * time.Nanosecond, Delay: 1234567, Frequency: -3.1416, Disciplined: true},
			"follows 10.0.0.1:123, stratum 11, offset +0.000ms, delay 1.235ms, frequency -3.142ppm"},
	} {
		if got := timeText(c.status); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

func TestBootingText(t *testing.T) {
	now := time.Unix(1e9, 0)
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	spec := api.MachineSpec{MACs: []string{"52:54:00:55:00:02"}, Node: 2}
	for _, c := range []struct {
		machine api.MachineInfo
		want    string
	}{
		{api.MachineInfo{MachineSpec: spec, State: api.MachineBooting, Phase: "admission", PhaseSince: ago(12), Text: "waits for approval"},
			"52:54:00:55:00:02 node 2, admission, 12s: waits for approval"},
		{api.MachineInfo{MachineSpec: spec, State: api.MachineBooting, Booted: ago(3)}, "52:54:00:55:00:02 node 2, was sent its kernel, 3s"},
		{api.MachineInfo{MachineSpec: api.MachineSpec{MACs: spec.MACs}, State: api.MachinePending, Since: ago(60)},
			"52:54:00:55:00:02, asks, 1m00s: waits for approval (node approve)"},
	} {
		if got := bootingText(c.machine, now); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}
