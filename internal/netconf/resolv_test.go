package netconf

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestResolv(t *testing.T) {
	leases := map[string]Lease{"eth0": {Addr: netip.MustParsePrefix("10.0.0.9/24"), DNS: []netip.Addr{netip.MustParseAddr("10.0.0.53"), netip.MustParseAddr("10.0.0.54")}, Domain: "rack.example"}}
	n := parse(t, "[[interface]]\nname = \"eth1\"\naddress = [\"10.1.0.1/24\"]\ndns = [\"10.0.0.54\"]\n[[interface]]\nname = \"eth0\"\naddress = [\"dhcp\"]")
	text := resolvText(resolvers(n, []Binding{{"eth1", "eth1"}, {"eth0", "eth0"}}, leases))
	if want := resolvMark + "\nnameserver 10.0.0.54\nnameserver 10.0.0.53\nsearch rack.example\n"; text != want {
		t.Errorf("%q, want %q", text, want)
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	for _, content := range []string{"", "old", resolvMark + "\nold\n"} {
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := writeResolv(path, text)
		got, _ := os.ReadFile(path)
		if content == "old" {
			if err == nil || !strings.Contains(err.Error(), "was not written by ssi and stays") || string(got) != "old" {
				t.Errorf("of another program: %v, %q", err, got)
			}
		} else if err != nil || string(got) != text {
			t.Errorf("over %q: %v, %q", content, err, got)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("elsewhere", path); err != nil {
		t.Fatal(err)
	}
	if err := writeResolv(path, text); err == nil || !strings.Contains(err.Error(), "no plain file") {
		t.Errorf("a link of another program: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".resolv*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
