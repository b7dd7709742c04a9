package config

import (
	"strings"
	"testing"
	"time"
)

func TestMachine(t *testing.T) {
	c, err := Parse("f", "[machine]\nhostname = \"Db-1.example.org\"\nwatchdog = \"1m30s\"\nswap = [\"LABEL=swap\", \"/swapfile\"]\npower_button = \"ignore\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if m := c.Machine; m.Hostname != "Db-1.example.org" || m.WatchdogTime() != 90*time.Second || len(m.Swap) != 2 || m.PowerButton != ButtonIgnore {
		t.Errorf("%+v", m)
	}
	if d := Default().Machine.WatchdogTime(); d != 0 {
		t.Errorf("a watchdog of %s that nobody asked for", d)
	}
	if b := Default().Machine.PowerButton; b != ButtonPowerOff {
		t.Errorf("a power button does %q where nobody said anything", b)
	}
	for _, bad := range []struct{ text, at, want string }{
		{"[machine]\nhostname = \"a_b\"", "f:2:1: ", `machine.hostname: "a_b" cannot be the name of a machine`},
		{"[machine]\nhostname = \"" + strings.Repeat("a", 65) + "\"", "f:2:1: ", "at most 64"},
		{"[machine]\nwatchdog = 30", "f:2:1: ", "a text in quotes"},
		{"[machine]\nwatchdog = \"off\"", "f:2:1: ", "leave it empty for no watchdog"},
		{"[machine]\n\n  watchdog = \"1s\"", "f:3:3: ", `"1s": it is from 5s to 1h0m0s`},
		{"[machine]\nwatchdog = \"2h\"", "f:2:1: ", "from 5s to 1h0m0s"},
		{"[machine]\nswap = \"/dev/vdb\"", "f:2:1: ", "a list in [ ]"},
		{"[machine]\nswap = [\"/a\", \"vdb\"]", "f:2:15: ", `"vdb" is neither an absolute path nor a tag`},
		{"[machine]\nswap = [\"LABEL=\"]", "f:2:9: ", "neither"},
		{"[machine]\nswap = [\"/a\", \"/a\"]", "f:2:15: ", "there twice"},
		{"[machine]\nswap = [" + strings.Repeat("\"/a\",", MaxSwap+1) + "]", "f:2:1: ", "at most 8"},
		{"[machine]\npower_button = \"suspend\"", "f:2:1: ", `machine.power_button: "suspend" is nothing that a power button does; it may be: poweroff, reboot, ignore`},
		{"[machine]\npower_button = \"\"", "f:2:1: ", "it may be: poweroff"},
		{"[machine]\nwatchdog_time = \"30s\"", "f:2:1: ", `there is no setting "watchdog_time"`},
	} {
		_, err := Parse("f", bad.text)
		if err == nil || !strings.HasPrefix(err.Error(), bad.at) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%q: %v, want %s…%s", bad.text, err, bad.at, bad.want)
		}
	}
}
