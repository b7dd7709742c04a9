package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

func TestMissingFileIsDefault(t *testing.T) {
	got, err := Load(filepath.Join(t.TempDir(), "none.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Error(diff)
	}
	if key, err := Default().check(); err != nil {
		t.Errorf("the default of %s is refused: %v", key, err)
	}
}

// The documented file is the defaults, and names every setting once.
func TestExample(t *testing.T) {
	b, err := os.ReadFile("../../docs/ssi.toml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse("docs/ssi.toml", string(b))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Classes, want.Interconnect = []string{}, []string{}
	want.Netboot.DNS, want.Netboot.Classes, want.Netboot.Include = []string{}, []string{}, []string{}
	want.Time.Servers, want.Machine.Swap = []string{}, []string{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the documented defaults are not those of the program:\n%s", diff)
	}
	set := places(string(b) + "\n" + strings.ReplaceAll(uncomment(string(b)), "\n# ", "\n"))
	for _, key := range Keys() {
		found := false
		for path := range set {
			found = found || plain(path) == key
		}
		if !found {
			t.Errorf("%s is not in docs/ssi.toml", key)
		}
	}
}

// uncomment is the example of interfaces in the documented file.
func uncomment(text string) string {
	_, text, _ = strings.Cut(text, "shows every setting once:\n#\n")
	text, _, _ = strings.Cut(text, "\n\n")
	return strings.ReplaceAll("\n"+text, "\n# ", "\n")
}

// The example of interfaces is one that is taken.
func TestExampleInterfaces(t *testing.T) {
	b, err := os.ReadFile("../../docs/ssi.toml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("example", uncomment(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Interfaces) != 4 || c.Interfaces[2].Bond == nil || c.Interfaces[3].VLAN == nil {
		t.Errorf("%+v", c.Interfaces)
	}
	if diff := cmp.Diff([]string{"eth0", "ic0"}, c.Interconnects()); diff != "" {
		t.Error(diff)
	}
}

func TestParse(t *testing.T) {
	got, err := Parse("x", `
profile = "fast"
addr = "[fd00::1]:1985"
classes = ["web", "db-2"]
max_voters = 3
capable = false
log_level = "debug"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Profile, want.Addr, want.Classes, want.MaxVoters, want.Capable, want.LogLevel = "fast", "[fd00::1]:1985", []string{"web", "db-2"}, 3, false, "debug"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Every mistake names file, line and column, and what is allowed.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ text, where, says string }{
		{"profile = \"fast\"\n\n  listne = \":1\"", "f:3:3: ", `there is no setting "listne"; the settings are: profile, name`},
		{"[tls]\nkey = 1", "f:1:2: ", `there is no setting "tls"`},
		{"a.b = 1", "f:1:1: ", `there is no setting "a`},
		{"profile = \"slow\"", "f:1:1: ", `"slow" is no profile; the profiles are: fast, lan, wan`},
		{"\nmax_voters = 4", "f:2:1: ", "4: it is 1, 3, 5 or 7"},
		{"max_voters = \"three\"", "f:1:", "max_voters"},
		{"capable = 1", "f:1:", "capable"},
		{"profile = ", "f:1:", "expected value"},
		{"profile = \"lan\"\nprofile = \"wan\"", "f:2:", "already been defined"},
		{"listen = \"1985\"", "f:1:1: ", `"1985" is no HOST:PORT`},
		{"listen = \"node1:1985\"", "f:1:1: ", `"node1" is no IP address`},
		{"listen = \":70000\"", "f:1:1: ", "the port is a number from 1 to 65535"},
		{"addr = \":1985\"", "f:1:1: ", "names no host"},
		{"addr = \"0.0.0.0:1985\"", "f:1:1: ", "names no host"},
		{"name = \"12\"", "f:1:1: ", "onnode takes it for something else"},
		{"name = \"best\"", "f:1:1: ", "onnode takes it for something else"},
		{"name = \"Node 1\"", "f:1:1: ", "a name has at most 63 of a-z"},
		{"classes = [\"a\", \"b_c\"]", "f:1:1: ", `"b_c": a name has`},
		{"log_level = \"loud\"", "f:1:1: ", "the levels are: debug, info, warn, error"},
		{"state_dir = \"var/lib\"", "f:1:1: ", "an absolute path"},
		{"hooks_dir = \"/etc/../ssi\"", "f:1:1: ", "an absolute path"},
		{"interface = 1", "f:1:1: ", "tables, each under a line [[interface]]"},
		{"netboot = true", "f:1:1: ", "a table: [netboot]"},
	} {
		_, err := Parse("f", c.text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: error %v, want a *Error", c.text, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), c.where) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q:\n got %v\nwant %s… %s", c.text, err, c.where, c.says)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %q", c.text, err)
		}
	}
}

func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a plain file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestCompleteAddr(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1":       "10.0.0.1:1985",
		"10.0.0.1:2000":  "10.0.0.1:2000",
		"node1":          "node1:1985",
		"fd00::1":        "[fd00::1]:1985",
		"[fd00::1]":      "[fd00::1]:1985",
		"[fd00::1]:2000": "[fd00::1]:2000",
	} {
		if got, err := CompleteAddr(in); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", ":1985", "a:b", "::"} {
		if got, err := CompleteAddr(in); err == nil {
			t.Errorf("%q is taken as %s", in, got)
		}
	}
}

func TestJoin(t *testing.T) {
	got, err := ParseJoin("f", "# for node 7\nssi1-abc # secret\n10.0.0.1  10.0.0.2:2000\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Join{Token: "ssi1-abc", Addrs: []string{"10.0.0.1:1985", "10.0.0.2:2000"}}, got); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		"":                          "f: no token",
		"10.0.0.1":                  "f:1:1: the first word is no token",
		"ssi1-a\nssi1-b":            "f:2:1: there is a second token",
		"ssi1-a\n:7":                "f:2:1: ",
		strings.Repeat("#", 70<<10): "f: longer than",
		"ssi1-a\n" + strings.Repeat("h\n", MaxJoinAddrs+1): "more than 64 addresses",
	} {
		_, err := ParseJoin("f", text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "ssi1-a") {
			t.Errorf("the message tells the token: %v", err)
		}
	}
}

func TestReadJoinWantsPrivacy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "join")
	if err := os.WriteFile(path, []byte("ssi1-abc\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadJoin(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file everyone reads: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if join, err := ReadJoin(path); err != nil || join.Token != "ssi1-abc" {
		t.Errorf("%+v, %v", join, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("profile = \"fast\"\n")
	f.Add("a.b.c = [1, {x = 2}]\n")
	f.Add("[[x]]\n")
	f.Add("[[interface]]\nname = 'a'\naddress = [\"dhcp\", # x\n]\n[interface.vlan]\nid = 7\nparent = \"eth0\"\n")
	f.Add("[[interface]]\nname = 'a'\nbond = {members = ['b', 'c'], miimon = 50}\nroutes = [{to='::/0'}]\n")
	f.Add("[netboot]\nenable = true\nrange = \"10.0.0.1-10.0.0.9\"\n[time]\nservers = ['''a''']\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") || strings.HasPrefix(err.Error(), "f: ") {
				t.Errorf("the message has no place: %v", err)
			}
			return
		}
		if key, err := c.check(); err != nil {
			t.Errorf("%s is out of range and was taken: %v", key, err)
		}
		for _, n := range c.Interfaces {
			if n.MTU < 0 || n.MTU > 65535 || n.VLAN != nil && (n.VLAN.ID < 1 || n.VLAN.ID > 4094) || n.Bond != nil && (n.Bond.Interval() < 10 || n.Bond.Interval() > 100) {
				t.Errorf("out of range and taken: %+v", n)
			}
		}
	})
}

// Every key that the decoder finds has a place.
func FuzzPlaces(f *testing.F) {
	f.Add("a.b.c = [1, {x = 2}]\n[\"q\"]\n[[q.r]]\ny=1\n[[q.r]]\n[q.r.s]\nz=\n")
	f.Add("a = \"\"\"x\\\"\"\"\"\nb = [[],[[1],'\\']]#]\nc = {d.e=1979-05-27T07:32:00Z,f=[]}")
	f.Fuzz(func(t *testing.T, text string) {
		all := places(text)
		for path, p := range all {
			if p.line < 1 || p.col < 1 {
				t.Fatalf("%q is at %+v", path, p)
			}
		}
		var raw map[string]any
		md, err := toml.Decode(text, &raw)
		if err != nil {
			return
		}
		for _, key := range md.Keys() {
			if strings.ContainsAny(strings.Join(key, ""), `"'.[]\`) || strings.Contains(text, `\`) || slices.Contains(key, "") {
				continue // names that no setting has
			}
			found := false
			for path := range all {
				found = found || plain(path) == strings.Join(key, ".")
			}
			if !found {
				t.Errorf("%q has no place: %v", key, all)
			}
		}
	})
}

func FuzzParseJoin(f *testing.F) {
	f.Add("ssi1-abc\n10.0.0.1\n")
	f.Fuzz(func(t *testing.T, text string) {
		join, err := ParseJoin("f", text)
		if err == nil && (!strings.HasPrefix(join.Token, TokenPrefix) || len(join.Addrs) > MaxJoinAddrs) {
			t.Errorf("%+v", join)
		}
	})
}
