package machine

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ssi/cluster/registry"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// patience bounds every wait of the tests.
const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a registry in memory.
type memory struct {
	mu    sync.Mutex
	store *registry.Store
	fail  error // what Txn answers instead
	txns  int
}

func newMemory() *memory { return &memory{store: registry.NewStore()} }

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
	m.txns++
	if m.fail != nil {
		return nil, m.fail
	}
	return registry.DecodeResult(m.store.Apply(1, cmd))
}

func (m *memory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (m *memory) changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.txns
}

// fakeCluster has nodes in states, and makes numbered tokens.
type fakeCluster struct {
	mu      sync.Mutex
	states  map[id.Node]api.State
	given   map[id.Node]bool
	tokens  []id.Node
	revoked []id.Node
	fail    error
}

func newFakeCluster() *fakeCluster {
	return &fakeCluster{states: map[id.Node]api.State{1: api.Up}, given: map[id.Node]bool{1: true}}
}

func (f *fakeCluster) Self() id.Node { return 1 }

func (f *fakeCluster) State(n id.Node) api.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.states[n]; s != "" {
		return s
	}
	return api.NeverUp
}

func (f *fakeCluster) Given(n id.Node) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.given[n]
}

func (f *fakeCluster) Credential(_ context.Context, n id.Node, ttl time.Duration) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ttl > 60*time.Second {
		return nil, fmt.Errorf("a token of %v is too long", ttl)
	}
	if f.fail != nil {
		return nil, f.fail
	}
	f.tokens = append(f.tokens, n)
	return fmt.Appendf(nil, "ssi1-secret%d\n10.0.0.1:1985\n", len(f.tokens)), nil
}

func (f *fakeCluster) Revoke(_ context.Context, n id.Node, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.given[n] {
		return errno.New(errno.NotFound, "revoke", 0, "no node %d ever joined this cluster", n)
	}
	f.revoked = append(f.revoked, n)
	return nil
}

func (f *fakeCluster) set(n id.Node, s api.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states[n], f.given[n] = s, true
}

func (f *fakeCluster) made() []id.Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tokens)
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// fakeNeighbours is a neighbour table.
type fakeNeighbours struct {
	mu sync.Mutex
	m  map[netip.Addr]MAC
}

func (f *fakeNeighbours) Neighbour(a netip.Addr) (MAC, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	mac, ok := f.m[a]
	return mac, ok, nil
}

func (f *fakeNeighbours) set(a netip.Addr, m MAC) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m[a] = m
}

// world is a table with its admission in a world of fakes.
type world struct {
	t       testing.TB
	reg     *memory
	cluster *fakeCluster
	clock   *clock
	near    *fakeNeighbours
	table   *Table
	adm     *Admission

	mu     sync.Mutex
	alarms []string
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, reg: newMemory(), cluster: newFakeCluster(), near: &fakeNeighbours{m: map[netip.Addr]MAC{}},
		clock: &clock{t: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)}}
	w.table = w.another()
	w.adm = NewAdmission(w.table, w.near, slog.New(slog.DiscardHandler), func(text string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.alarms = append(w.alarms, text)
	})
	return w
}

// another is the table as another node has it.
func (w *world) another() *Table {
	t := NewTable(w.reg, w.cluster)
	t.now = w.clock.now
	return t
}

// run runs the admission until the test ends.
func (w *world) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.adm.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func (w *world) reported() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.alarms, "\n")
}

// settled waits until all that was queued is written down.
func (w *world) settled() {
	w.t.Helper()
	w.until("everything is written down", func() bool {
		w.adm.mu.Lock()
		defer w.adm.mu.Unlock()
		return len(w.adm.events) == 0
	})
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// add adds one machine that must be accepted.
func (w *world) add(spec api.MachineSpec) *Machine {
	w.t.Helper()
	added, err := w.table.Add(w.t.Context(), []api.MachineSpec{spec})
	if err != nil {
		w.t.Fatal(err)
	}
	return added[0]
}

func (w *world) find(arg string) *Machine {
	w.t.Helper()
	b, err := w.table.Book()
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := b.Find(arg)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) boot(mac MAC) Boot {
	w.t.Helper()
	b, _, err := readBoot(w.reg.Stale(), mac)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) info(arg string) api.MachineInfo {
	w.t.Helper()
	info, err := w.table.Info(w.find(arg))
	if err != nil {
		w.t.Fatal(err)
	}
	return info
}

// mac makes the MAC of a number.
func mac(n int) MAC { return MAC{0x52, 0x54, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// wantErr fails unless err is of a kind and says something.
func wantErr(t testing.TB, err error, kind errno.Kind, text string) {
	t.Helper()
	if !errno.Is(err, kind) || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("got %v, want an error of kind %v with %q", err, kind, text)
	}
}
