package netboot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ssi/cluster/registry"
	"ssi/internal/config"
	"ssi/netboot/dhcp"
	"ssi/netboot/initramfs"
	"ssi/netboot/loader"
	"ssi/netboot/machine"
)

// memory is a registry in memory.
type memory struct {
	mu    sync.Mutex
	store *registry.Store
}

func (m *memory) View(context.Context) (registry.View, error) { return m.Stale(), nil }

func (m *memory) Stale() registry.View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store.View()
}

func (m *memory) Txn(_ context.Context, system bool, checks []*registry.Compare, ops ...*registry.Op) (*registry.Result, error) {
	cmd, err := registry.EncodeTxn(system, checks, ops...)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return registry.DecodeResult(m.store.Apply(1, cmd))
}

// nobody is a neighbour table that knows nobody.
type nobody struct{}

func (nobody) Neighbour(netip.Addr) (machine.MAC, bool, error) { return machine.MAC{}, false, nil }

// Leases survive their server, and a server whose time is over commits nothing.
func TestLeases(t *testing.T) {
	reg := &memory{store: registry.NewStore()}
	told := map[netip.Addr]dhcp.MAC{}
	first := &leases{reg: reg, leased: func(mac dhcp.MAC, ip netip.Addr) { told[ip] = mac }}
	if all, err := first.Load(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("load: %v, %v", all, err)
	}
	var changes []dhcp.Change
	const count = 3*leaseOps + 1 // more than one transaction
	expires := time.Now().Add(time.Hour)
	for i := range count {
		changes = append(changes, dhcp.Change{Lease: dhcp.Lease{
			Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), MAC: dhcp.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}, Expires: expires}})
	}
	if err := first.Commit(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	if len(told) != count {
		t.Errorf("%d leases were told of, want %d", len(told), count)
	}
	if err := first.Commit(t.Context(), []dhcp.Change{{Lease: changes[0].Lease, Delete: true}}); err != nil {
		t.Fatal(err)
	}
	second := &leases{reg: reg}
	all, err := second.Load(t.Context())
	if err != nil || len(all) != count-1 {
		t.Fatalf("the next server loads %d leases, %v; want %d", len(all), err, count-1)
	}
	if err := first.Commit(t.Context(), changes[:1]); err == nil {
		t.Error("a server of before commits")
	}
	if err := second.Commit(t.Context(), changes[:1]); err != nil {
		t.Errorf("the one that serves: %v", err)
	}
	if _, err := reg.Txn(t.Context(), true, nil, registry.PutOp(keyLeases+"/10.9.9.9", []byte("garbage"), 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := (&leases{reg: reg}).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "10.9.9.9") {
		t.Errorf("a damaged lease: %v", err)
	}
}

// The last part of the pool is for machines that may not boot yet.
func TestSubnet(t *testing.T) {
	own := netip.MustParsePrefix("10.0.0.1/24")
	for _, c := range []struct {
		pool, unknown, first, last, guests string
	}{
		{"10.0.0.100-10.0.0.199", config.UnknownWait, "10.0.0.100", "10.0.0.187", "10.0.0.188"},
		{"10.0.0.100-10.0.0.199", config.UnknownIgnore, "10.0.0.100", "10.0.0.199", ""},
		{"10.0.0.100-10.0.0.103", config.UnknownWait, "10.0.0.100", "10.0.0.103", ""},
	} {
		s, err := (&term{settings: config.Netboot{Mode: config.ModePool, Range: c.pool, Unknown: c.unknown}}).subnet(own)
		if err != nil {
			t.Fatal(err)
		}
		guests := ""
		if s.Guests.First.IsValid() {
			guests = s.Guests.First.String()
		}
		if s.Range.First.String() != c.first || s.Range.Last.String() != c.last || guests != c.guests {
			t.Errorf("%s, %s: %v, guests %v", c.pool, c.unknown, s.Range, s.Guests)
		}
	}
	if _, err := (&term{settings: config.Netboot{Range: "10.1.0.1-10.1.0.9"}}).subnet(own); err == nil {
		t.Error("a range of another network is taken")
	}
}

func TestLoaders(t *testing.T) {
	server := netip.MustParseAddrPort("10.0.0.1:8067")
	all := loadersOf(server, func(string) bool { return true })
	if all.IPXE != "http://10.0.0.1:8067/boot.ipxe" || all.BIOS != loader.Undionly || all.EFI64 != loader.SNPOnly || all.HTTP64 != "http://10.0.0.1:8067/"+ukiName {
		t.Errorf("with all loaders: %+v", all)
	}
	if none := loadersOf(server, func(string) bool { return false }); none.BIOS+none.EFI64+none.EFIARM64+none.HTTP64 != "" || none.IPXE == "" {
		t.Errorf("without loaders: %+v", none)
	}
}

// A mirror takes the files whose sums the registry has, and no others.
func TestMirror(t *testing.T) {
	files := map[string][]byte{kernelName: []byte("kernel"), initramfsName: bytes.Repeat([]byte("initramfs"), 1000)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(b)
	}))
	defer server.Close()
	shared := &Shared{Server: strings.TrimPrefix(server.URL, "http://")}
	for name, b := range files {
		sum := sha256.Sum256(b)
		shared.Files = append(shared.Files, File{Name: name, Size: int64(len(b)), Sum: hex.EncodeToString(sum[:])})
	}
	dir := filepath.Join(t.TempDir(), "netboot")
	s := New(Config{Dir: dir, Registry: &memory{store: registry.NewStore()}, Log: slog.New(slog.DiscardHandler)})
	if err := s.fetchAll(t.Context(), shared); err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	was := files[kernelName]
	files[kernelName] = []byte("hacked")
	if err := os.Remove(filepath.Join(dir, kernelName)); err != nil {
		t.Fatal(err)
	}
	if err := s.fetchAll(t.Context(), shared); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("another kernel: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, kernelName)); err == nil {
		t.Error("another kernel is kept")
	}
	files[kernelName] = was
	for _, name := range []string{"../evil", "/etc/passwd", stampName, "nosuch", ""} {
		if err := s.fetchAll(t.Context(), &Shared{Server: shared.Server, Files: []File{{Name: name, Size: 1}}}); err == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
}

// What files are made of is remembered, and what changes makes them anew.
func TestStamp(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "ssi")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(binary, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	stamp := func(c initramfs.Config) string {
		t.Helper()
		s, err := stampOf(c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	write("one")
	c := initramfs.Config{Binary: binary, Classes: []string{"vm"}}
	one := stamp(c)
	if one != stamp(c) {
		t.Error("the same is described otherwise")
	}
	write("another")
	if one == stamp(c) {
		t.Error("another binary is not noticed")
	}
	write("one")
	c.Classes = []string{"generic"}
	if one == stamp(c) {
		t.Error("other classes are not noticed")
	}
}

// Without boot files the service says what is missing, and leaves the node alone.
func TestNothingInstalled(t *testing.T) {
	var log bytes.Buffer
	logged := &lockedWriter{w: &log}
	reg := &memory{store: registry.NewStore()}
	s := New(Config{
		Settings: config.Netboot{Enable: true, Mode: config.ModeOff, Kernel: "9.9.9-none", HTTPPort: config.HTTPPort}, Dir: t.TempDir(), Root: t.TempDir(),
		Address: func(string) (string, netip.Prefix, error) {
			return "lo", netip.MustParsePrefix("127.0.0.1/8"), nil
		},
		Registry: reg, Table: machine.NewTable(reg, nil), Log: slog.New(slog.NewTextHandler(logged, nil)), Alarm: func(string) {},
	})
	s.addresses.neighbours = nobody{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Work(ctx) }()
	deadline := time.After(30 * time.Second)
	for !strings.Contains(logged.text(), "9.9.9-none") || !strings.Contains(logged.text(), "ssi.toml") {
		select {
		case <-deadline:
			t.Fatalf("it says: %s", logged.text())
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	<-done
	if _, err := s.addresses.owner(netip.MustParseAddr("10.0.0.9")); err == nil {
		t.Error("nobody has an owner")
	}
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (l *lockedWriter) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.String()
}
