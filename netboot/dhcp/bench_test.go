package dhcp

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// everyone lets every machine boot.
type everyone struct{}

func (everyone) Lookup(Query) Machine         { return Machine{State: Boot} }
func (everyone) Owner(netip.Addr) (MAC, bool) { return MAC{}, false }

// benchConfig has 10,240 addresses for machines.
func benchConfig() Config {
	cfg := testConfig(nil)
	cfg.Interface, cfg.Machines = "br0", everyone{}
	cfg.Subnets[0].Prefix = prefix("10.77.0.0/16")
	cfg.Subnets[0].Range = Range{ip4("10.77.1.0"), ip4("10.77.40.255")}
	cfg.Subnets[0].Guests = Range{}
	return cfg
}

// BenchmarkExchange is the core's part of DISCOVER, REQUEST and both answers, from
// bytes to bytes.
func BenchmarkExchange(b *testing.B) {
	now := time.Unix(1_800_000_000, 0)
	core, err := NewCore(benchConfig(), nil, now)
	if err != nil {
		b.Fatal(err)
	}
	do := func(packet []byte) *Reply {
		r, err := ParseRequest(packet, portServer, netip.AddrPort{})
		if err != nil {
			b.Fatal(err)
		}
		reply := core.Handle(now, r).Reply
		if reply == nil {
			b.Fatal("no answer")
		}
		reply.Message.ToBytes()
		return reply
	}
	const machines = 1000
	var discovers, requests [machines][]byte
	for i := range machines {
		discovers[i] = message{kind: discover, mac: mac(i), options: optionsIPXE}.bytes()
		a := addrOf(do(discovers[i]).Message.YourIPAddr)
		requests[i] = message{kind: request, mac: mac(i), options: optionsIPXE, wanted: a.String(), server: "10.77.0.1"}.bytes()
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		do(discovers[i%machines])
		do(requests[i%machines])
	}
}

// BenchmarkFull is a DISCOVER of a machine that gets nothing, as in a flood, with
// every address in use.
func BenchmarkFull(b *testing.B) {
	now := time.Unix(1_800_000_000, 0)
	var leases []Lease
	cfg := benchConfig()
	for i := range cfg.Subnets[0].Range.size() {
		leases = append(leases, Lease{Addr: address(number(cfg.Subnets[0].Range.First) + uint32(i)), MAC: mac(i), Expires: now.Add(time.Hour)})
	}
	core, err := NewCore(cfg, leases, now)
	if err != nil {
		b.Fatal(err)
	}
	packet := message{kind: discover, mac: mac(60000)}.bytes()
	for b.Loop() {
		r, err := ParseRequest(packet, portServer, netip.AddrPort{})
		if err != nil {
			b.Fatal(err)
		}
		if core.Handle(now, r).Reply != nil {
			b.Fatal("an answer")
		}
	}
}

// slowStore takes as long for a commit as replication over a local network.
type slowStore struct {
	*memory
	commit time.Duration
}

func (s slowStore) Commit(ctx context.Context, changes []Change) error {
	t := time.NewTimer(s.commit)
	defer t.Stop()
	select {
	case <-t.C:
		return s.memory.Commit(ctx, changes)
	case <-ctx.Done():
		return ctx.Err()
	}
}

const benchVariable = "SSI_BENCH_DHCP"

// TestPerfdhcp measures whole exchanges a second with perfdhcp, of this server, of
// dnsmasq and of Kea, each alone on the machine. It prints and asserts nothing.
func TestPerfdhcp(t *testing.T) {
	if os.Getenv(benchVariable) == "" {
		t.Skipf("a benchmark: set %s=1", benchVariable)
	}
	perfdhcp := need(t, "perfdhcp")
	servers := []struct {
		name  string
		start func(*testing.T) (stop func() time.Duration) // which returns the processor time that it took
	}{
		{"ssi", func(t *testing.T) func() time.Duration { return startOurs(t, newMemory()) }},
		{"ssi, 2 ms a commit", func(t *testing.T) func() time.Duration {
			return startOurs(t, slowStore{newMemory(), 2 * time.Millisecond})
		}},
		{"dnsmasq", startDnsmasq},
		{"kea, lease file", func(t *testing.T) func() time.Duration { return startKea(t, true) }},
		{"kea, in memory", func(t *testing.T) func() time.Duration { return startKea(t, false) }},
	}
	best, cpu := map[string]float64{}, map[string]time.Duration{}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			w := newWires(t, 1)
			ip(t, "addr", "flush", "dev", "br0")
			ip(t, "addr", "add", "10.77.0.1/16", "dev", "br0")
			w.ip(t, 0, "addr", "add", "10.77.0.2/16", "dev", "c0")
			stop := s.start(t)
			run := func(args ...string) string {
				ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
				defer cancel()
				// It fails when a packet was dropped; the output says how many.
				out, _ := w.command(ctx, 0, append(append([]string{perfdhcp, "-4", "-l", "c0"}, args...), "10.77.0.1")...).CombinedOutput()
				return string(out)
			}
			until(t, "first answer of "+s.name, func() bool {
				return strings.Contains(run("-n", "1", "-r", "1", "-W", "500000"), "received packets: 1")
			})
			acks := 0
			for _, want := range []int{3000, 5500, 8000, 12000} {
				out := run("-r", strconv.Itoa(want), "-R", "5000", "-p", "4")
				got := rate(out)
				acks += received(out)
				t.Logf("%-20s asked for %5d exchanges/s: %7.0f/s, drops %s", s.name, want, got, drops(out))
				best[s.name] = max(best[s.name], got)
			}
			cpu[s.name] = stop() / time.Duration(max(1, acks))
		})
	}
	for _, s := range servers {
		t.Logf("%-20s %7.0f exchanges/s (ssi is %.2f times as fast), %v of processor time each", s.name, best[s.name], best["ssi"]/best[s.name], cpu[s.name])
	}
}

// rate is the exchanges a second of perfdhcp's report.
func rate(out string) float64 {
	if m := regexp.MustCompile(`Rate: ([0-9.]+) 4-way`).FindStringSubmatch(out); m != nil {
		r, _ := strconv.ParseFloat(m[1], 64)
		return r
	}
	return 0
}

// received is how many addresses were acknowledged.
func received(out string) int {
	_, acks, _ := strings.Cut(out, "REQUEST-ACK")
	if m := regexp.MustCompile(`received packets: ([0-9]+)`).FindStringSubmatch(acks); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 0
}

// drops is the shares of lost DISCOVERs and REQUESTs.
func drops(out string) string {
	s := ""
	for _, m := range regexp.MustCompile(`drops ratio: ([0-9.e-]+ ?%)`).FindAllStringSubmatch(out, -1) {
		s += " " + m[1]
	}
	return s
}

// startOurs serves in this process; perfdhcp is another one.
func startOurs(t *testing.T, store Store) (stop func() time.Duration) {
	cfg := benchConfig()
	cfg.Store = store
	end := start(t, cfg, nil)
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() time.Duration {
		d := used() - before
		end()
		return d
	}
}

// startOther starts a server of others in the namespace of the test.
func startOther(t *testing.T, args ...string) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+t.TempDir(), "KEA_LOCKFILE_DIR=none")
	if err := c.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	return func() time.Duration {
		cancel()
		_ = c.Wait()
		return c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
}

func startDnsmasq(t *testing.T) func() time.Duration {
	return startOther(t, need(t, "dnsmasq"), "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=br0", "--bind-interfaces",
		"--dhcp-range=10.77.1.0,10.77.40.255,255.255.0.0,1h", "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), "--pid-file=",
		"--user=root", "--no-ping", "--dhcp-authoritative", "--dhcp-lease-max=20000", "--quiet-dhcp", "--log-facility=/dev/null")
}

func startKea(t *testing.T, persist bool) func() time.Duration {
	dir := t.TempDir()
	conf := filepath.Join(dir, "kea.json")
	text := fmt.Sprintf(`{"Dhcp4": {"interfaces-config": {"interfaces": ["br0"], "dhcp-socket-type": "udp"}, "valid-lifetime": 3600,
		"lease-database": {"type": "memfile", "persist": %v, "name": %q, "lfc-interval": 0},
		"subnet4": [{"id": 1, "subnet": "10.77.0.0/16", "pools": [{"pool": "10.77.1.0 - 10.77.40.255"}]}],
		"loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": %q}]}]}}`, persist, filepath.Join(dir, "leases.csv"), filepath.Join(dir, "log"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startOther(t, need(t, "kea-dhcp4"), "-c", conf)
}
