package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ssi/cluster/core"
	"ssi/cluster/member"
	"ssi/cluster/pki"
	"ssi/internal/id"
)

// patience bounds every wait of the tests; nothing takes nearly as long on an
// idle machine.
const patience = 40 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is the log of a node, printed when its test failed.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// machine is one node of a cluster in this process: its files, and the Cluster
// that runs on them now.
type machine struct {
	t      *testing.T
	dir    string // its disk
	run    string // its memory: /run
	addr   string
	log    journal
	change func(*Config)

	c       *Cluster
	stop    context.CancelFunc
	done    chan struct{} // closed when Run has returned
	err     error         // what Run returned
	mu      sync.Mutex
	serving []Serving
	gone    []id.Node
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	m := &machine{t: t, dir: filepath.Join(t.TempDir(), "ssi"), run: t.TempDir(), addr: l.Addr().String()}
	t.Cleanup(func() {
		m.halt()
		if t.Failed() {
			t.Logf("log of %s:\n%s", m.addr, m.log.String())
		}
	})
	return m
}

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// hooks is the directory for the hooks of all tests of a cluster.
func (m *machine) hooks() string { return filepath.Join(m.dir, "hooks") }

func (m *machine) config() Config {
	cfg := Config{
		Dir: m.dir, RunDir: m.run, HooksDir: m.hooks(), Log: m.log.logger(),
		Info: member.Info{Name: "m" + filepath.Base(m.dir), Addr: m.addr, Capable: true},
		OnServing: func(s Serving) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.serving = append(m.serving, s)
		},
		OnGone: func(n id.Node, _ string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.gone = append(m.gone, n)
		},
	}
	if m.change != nil {
		m.change(&cfg)
	}
	return cfg
}

// start runs the node.
func (m *machine) start() {
	m.t.Helper()
	c, err := New(m.config())
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	m.c, m.stop, m.done = c, stop, make(chan struct{})
	l := listen(m.t, m.addr)
	go func() {
		defer close(m.done)
		m.err = c.Run(ctx, l)
	}()
}

// halt ends the daemon as a crash would. Its memory stays.
func (m *machine) halt() {
	if m.stop != nil {
		m.stop()
		<-m.done
	}
}

// crash cuts the power.
func (m *machine) crash() {
	m.halt()
	m.run = m.t.TempDir()
}

// ended waits until Run has returned by itself.
func (m *machine) ended() error {
	m.t.Helper()
	select {
	case <-m.done:
	case <-time.After(patience):
		m.t.Fatal("Run does not end")
	}
	return m.err
}

func (m *machine) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	m.t.Cleanup(cancel)
	return ctx
}

// await waits for a published value.
func await[T any](t *testing.T, what string, p *Published[T], ok func(T) bool) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	v, err := p.Wait(ctx, ok)
	if err != nil {
		t.Fatalf("waited in vain for %s; the last was %+v", what, v)
	}
	return v
}

// sees waits until the node sees node n in a state.
func (m *machine) sees(n id.Node, want member.State) *member.View {
	m.t.Helper()
	return await(m.t, "node "+n.String()+" "+want.String(), m.c.Members(), func(v *member.View) bool { return v.Get(n).State == want })
}

// votes waits until the node sees so many voters.
func (m *machine) votes(count int) {
	m.t.Helper()
	await(m.t, "voters", m.c.Status(), func(s core.Status) bool { return len(s.Voters) == count })
}

func (m *machine) serves() {
	m.t.Helper()
	await(m.t, "a node that serves", m.c.Serving(), func(s Serving) bool { return s.OK })
}

// until waits for a condition that nothing announces.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// found starts a cluster of one node.
func found(t *testing.T, profile string, tokens int, change ...func(*machine)) (*machine, []string) {
	t.Helper()
	m := newMachine(t)
	for _, f := range change {
		f(m)
	}
	_, secrets, err := Found(NewCluster{Dir: m.dir, Name: "test", Node: 1, Profile: profile, Addr: m.addr, Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	m.start()
	return m, secrets
}

// founded waits until the cluster is ready for joiners.
func (m *machine) founded() {
	m.t.Helper()
	m.sees(1, member.Up)
	until(m.t, "the founding to end", func() bool { return !exists(filepath.Join(m.dir, fileFounding)) })
}

// admit lets another machine join, by asking the nodes at addrs.
func admit(t *testing.T, token string, addrs ...string) (*machine, error) {
	t.Helper()
	m := newMachine(t)
	_, err := m.join(token, addrs...)
	return m, err
}

func (m *machine) join(token string, addrs ...string) (Identity, error) {
	return JoinAs(m.ctx(), JoinRequest{Dir: m.dir, Token: token, Addrs: addrs, Name: "joiner", Addr: m.addr, Version: "test"})
}

// clusterOf starts n nodes that are UP and vote.
func clusterOf(t *testing.T, n int, change ...func(*machine)) []*machine {
	t.Helper()
	first, tokens := found(t, "lan", n-1, change...)
	first.founded()
	all := []*machine{first}
	for _, token := range tokens {
		m, err := admit(t, token, first.addr)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range change {
			f(m)
		}
		m.start()
		all = append(all, m)
	}
	for _, m := range all {
		for i := range all {
			m.sees(id.Node(i+1), member.Up)
		}
		m.votes(n)
		m.serves()
	}
	return all
}

// token makes one.
func (m *machine) token(n id.Node, ttl time.Duration) string {
	m.t.Helper()
	tok, addrs, err := m.c.NewToken(m.ctx(), n, pki.RoleNode, ttl)
	if err != nil {
		m.t.Fatal(err)
	}
	if len(addrs) == 0 {
		m.t.Error("the token comes without addresses")
	}
	return tok.Secret()
}
