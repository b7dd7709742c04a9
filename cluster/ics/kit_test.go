package ics

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/cluster/pki"
	"ssi/internal/errno"
	"ssi/internal/id"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests, those of the transports too: only a
// machine that is very busy takes so long.
const patience = 60 * time.Second

// testNet is a cluster of transports on loopback.
type testNet struct {
	t     testing.TB
	ca    *pki.CAKey
	nodes map[id.Node]*testNode

	mu      sync.Mutex
	revoked map[id.Node]bool
}

type testNode struct {
	*Transport
	n    id.Node
	inc  id.Incarnation
	addr string
	log  *logBuffer
	echo *echo
}

func newNet(t testing.TB, nodes ...id.Node) *testNet {
	t.Helper()
	ca, err := pki.NewCA("test", time.Now())
	must(t, err)
	tn := &testNet{t: t, ca: ca, nodes: map[id.Node]*testNode{}, revoked: map[id.Node]bool{}}
	for _, n := range nodes {
		tn.start(n, nil)
	}
	tn.view(1)
	return tn
}

func (tn *testNet) isRevoked(i pki.Identity) bool {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	return tn.revoked[i.Node]
}

func (tn *testNet) revoke(n id.Node) {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	tn.revoked[n] = true
}

func (tn *testNet) material(n id.Node) pki.Material {
	tn.t.Helper()
	return material(tn.t, tn.ca, n)
}

func material(t testing.TB, ca *pki.CAKey, n id.Node) pki.Material {
	t.Helper()
	key, err := pki.NewKey()
	must(t, err)
	der, err := ca.Issue(n, pki.RoleNode, key.Public().(ed25519.PublicKey), time.Now())
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return pki.Material{CA: &ca.CA, Cert: cert, Key: key}
}

// start starts a node, again if it was there: with the next incarnation, at
// the same address if that is free.
func (tn *testNet) start(n id.Node, change func(*Config)) *testNode {
	tn.t.Helper()
	return tn.startWith(n, change, nil)
}

func (tn *testNet) startJoin(n id.Node, join func(*slog.Logger) JoinHandler) *testNode {
	tn.t.Helper()
	return tn.startWith(n, nil, join)
}

func (tn *testNet) startWith(n id.Node, change func(*Config), join func(*slog.Logger) JoinHandler) *testNode {
	tn.t.Helper()
	addr, inc := "127.0.0.1:0", id.Incarnation(n)*1000
	if old := tn.nodes[n]; old != nil {
		addr, inc = old.addr, old.inc+1
	}
	l, err := net.Listen("tcp", addr)
	must(tn.t, err)
	node := &testNode{n: n, inc: inc, addr: l.Addr().String(), log: &logBuffer{}, echo: newEcho()}
	cfg := Config{
		Self: n, Incarnation: inc, Credentials: pki.NewCredentials(tn.material(n), tn.isRevoked),
		Log: slog.New(slog.NewTextHandler(node.log, nil)), Control: []string{"test.Control/", "control"},
		Limits: Limits{Handshake: patience, DialTimeout: patience, CallTimeout: patience, MessageTimeout: patience},
	}
	if change != nil {
		change(&cfg)
	}
	node.Transport, err = New(cfg)
	must(tn.t, err)
	if join != nil {
		node.HandleJoin(join(cfg.Log))
	}
	registerEcho(node.Transport, "test.Echo", node.echo)
	registerEcho(node.Transport, "test.Control", node.echo)
	node.HandleMessages(func(from id.Node, msg []byte) { node.echo.message(from, msg) })
	served := make(chan error, 1)
	go func() { served <- node.Serve(l) }()
	tn.t.Cleanup(func() {
		must(tn.t, node.Close())
		if err := <-served; err != nil {
			tn.t.Errorf("node %d: Serve: %v", n, err)
		}
	})
	tn.nodes[n] = node
	return node
}

// peers is the table of the nodes as they are now.
func (tn *testNet) peers() map[id.Node]Peer {
	m := map[id.Node]Peer{}
	for n, node := range tn.nodes {
		m[n] = Peer{Addr: node.addr, Member: true, Incarnation: node.inc}
	}
	return m
}

// view tells all nodes that all nodes are members.
func (tn *testNet) view(epoch id.Epoch) {
	for _, node := range tn.nodes {
		node.SetView(epoch, tn.peers())
	}
}

func (n *testNode) call(ctx context.Context, to id.Node, text string) (string, error) {
	return n.callOn(ctx, to, "test.Echo/Unary", text)
}

func (n *testNode) callOn(ctx context.Context, to id.Node, method, text string) (string, error) {
	var out wrapperspb.BytesValue
	err := n.Call(ctx, to, method, &wrapperspb.BytesValue{Value: []byte(text)}, &out)
	return string(out.GetValue()), err
}

func wantKind(t testing.TB, err error, kind errno.Kind, parts ...string) {
	t.Helper()
	var e *errno.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("error %v (%T), want kind %q", err, err, kind)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Fatalf("error %q does not say %q", err, part)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition that has no channel.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		<-tick.C
	}
}

func within[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("never happened: %s", what)
		panic("unreachable")
	}
}

// logBuffer collects a node's log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if os.Getenv("ICS_TEST_LOG") != "" {
		fmt.Fprintf(os.Stderr, "%s", p)
	}
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) has(parts ...string) bool {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			return true
		}
	}
	return false
}

// echo is the service the tests call.
type echo struct {
	started  chan string // a "wait" call runs
	caller   chan Remote
	messages chan message
	sent     atomic.Int64 // items of streams
}

type message struct {
	from id.Node
	text string
}

func newEcho() *echo {
	return &echo{started: make(chan string, 16), caller: make(chan Remote, 1024), messages: make(chan message, 100000)}
}

func (e *echo) message(from id.Node, msg []byte) {
	select {
	case e.messages <- message{from, string(msg)}:
	default:
		panic("test queue is full")
	}
}

// unary answers what it got; "wait" waits for the end of its context, "fail"
// and "plain" fail.
func (e *echo) unary(ctx context.Context, in *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
	select {
	case e.caller <- Caller(ctx):
	default:
	}
	switch string(in.GetValue()) {
	case "wait":
		e.started <- "wait"
		<-ctx.Done()
		return nil, context.Cause(ctx)
	case "fail":
		return nil, errno.New(errno.NotFound, "find thing", 7, "no such thing")
	case "plain":
		return nil, errors.New("something broke")
	}
	return in, nil
}

// stream sends what it got as often as the text says, then waits if it is told.
func (e *echo) stream(ctx context.Context, in *wrapperspb.BytesValue, send func(*wrapperspb.BytesValue) error) error {
	var times, size int
	var wait string
	if _, err := fmt.Sscanf(string(in.GetValue()), "%d %d %s", &times, &size, &wait); err != nil {
		return errno.New(errno.Invalid, "", 0, "%w", err)
	}
	item := &wrapperspb.BytesValue{Value: make([]byte, size)}
	for i := range times {
		copy(item.Value, fmt.Sprintf("%08d", i))
		if err := send(item); err != nil {
			return err
		}
		e.sent.Add(1)
	}
	if wait == "wait" {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return nil
}

func registerEcho(t *Transport, name string, e *echo) {
	t.Handle(name+"/Unary", Unary(e.unary))
	t.HandleStream(name+"/Stream", Streaming(e.stream))
	t.Handle(name+"/Panic", Unary(func(context.Context, *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) { panic("on purpose") }))
}
