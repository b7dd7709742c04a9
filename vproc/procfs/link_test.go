package procfs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// fakeNodes answers polls with its own number, unless a node is silent.
type fakeNodes struct {
	silent id.Node
	calls  chan struct{} // of each call, if not nil
}

func (f *fakeNodes) Call(ctx context.Context, n id.Node, _ string, _, reply proto.Message) error {
	if f.calls != nil {
		f.calls <- struct{}{}
	}
	if n == f.silent {
		<-ctx.Done()
		return errno.New(errno.Timeout, "call", n, "%w", ctx.Err())
	}
	if p, ok := reply.(*PollReply); ok {
		p.Instance = uint64(n)
	}
	return nil
}

func (f *fakeNodes) Watch() (*Cluster, <-chan struct{}) {
	return newCluster(1, 2, 3), make(chan struct{})
}

// linked is a link to a relay, and what cuts the connection.
func linked(t *testing.T, nodes Nodes) (l *Link, cut func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	relay := NewRelay(nodes, log)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var last net.Conn
	l = NewLink(log, func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		mu.Lock()
		last = far
		mu.Unlock()
		wg.Go(func() { _ = relay.serve(ctx, far) })
		return near, nil
	}, func(*Cluster) {})
	wg.Go(func() { l.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return l, func() {
		mu.Lock()
		defer mu.Unlock()
		_ = last.Close()
	}
}

func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestLink(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	l, _ := linked(t, &fakeNodes{silent: 3})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if rep, err := l.Poll(limit(t, 10*time.Second), 2, &PollRequest{}); err != nil || rep.GetInstance() != 2 {
				t.Errorf("%v, %v", rep, err)
			}
		})
	}
	wg.Wait()
	if _, err := l.Poll(limit(t, 50*time.Millisecond), 3, &PollRequest{}); errno.KindOf(err) != errno.Timeout {
		t.Errorf("a node that is silent: %v", err)
	}
	if _, err := l.Poll(limit(t, 10*time.Second), 9, &PollRequest{}); errno.KindOf(err) != errno.Unavailable {
		t.Errorf("a node that is not UP: %v", err)
	}
	if _, err := l.ask(limit(t, 10*time.Second), &Ask{Node: 2}); errno.KindOf(err) != errno.Unavailable {
		t.Errorf("no question: %v", err)
	}
}

// A question that the connection lost is asked again.
func TestLinkLost(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	nodes := &fakeNodes{silent: 3, calls: make(chan struct{})}
	l, cut := linked(t, nodes)
	done := make(chan error, 1)
	go func() {
		_, err := l.Poll(limit(t, 2*time.Second), 3, &PollRequest{})
		done <- err
	}()
	for range 3 {
		<-nodes.calls
		cut()
	}
	<-nodes.calls
	if err := <-done; errno.KindOf(err) != errno.Timeout {
		t.Error(err)
	}
}

// What was to be written is not sent again: nobody knows whether it was written.
func TestLinkWriteLost(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	nodes := &fakeNodes{silent: 3, calls: make(chan struct{}, 10)}
	l, cut := linked(t, nodes)
	done := make(chan error, 1)
	go func() {
		_, err := l.Fetch(limit(t, 10*time.Second), 3, &FetchRequest{What: What_WRITE, Data: []byte("5")})
		done <- err
	}()
	<-nodes.calls
	cut()
	if err := <-done; !errors.Is(err, errLost) {
		t.Error(err)
	}
	if len(nodes.calls) != 0 {
		t.Error("it was sent again")
	}
}

func TestFrame(t *testing.T) {
	var b bytes.Buffer
	want := &Ask{Id: 7, Node: 2, Fetch: &FetchRequest{Path: "stat"}}
	if err := writeFrame(&b, want); err != nil {
		t.Fatal(err)
	}
	got := &Ask{}
	if err := readFrame(bufio.NewReader(&b), got); err != nil || !proto.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if err := writeFrame(&b, &Tell{Error: string(make([]byte, maxFrame))}); err == nil {
		t.Error("a message over the limit was sent")
	}
	if err := readFrame(bufio.NewReader(bytes.NewReader(binary.BigEndian.AppendUint32(nil, maxFrame+1))), got); err == nil {
		t.Error("a message over the limit was read")
	}
}

func FuzzFrame(f *testing.F) {
	var b bytes.Buffer
	_ = writeFrame(&b, &Tell{Id: 1, Poll: &PollReply{Full: true, Processes: []*Process{message(two, "a")}}})
	f.Add(b.Bytes())
	f.Add([]byte{0, 0, 0, 1, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &Tell{}
		if readFrame(bufio.NewReader(bytes.NewReader(b)), m) != nil || m.GetPoll() == nil {
			return
		}
		tab := newTable(0)
		tab.setCluster(newCluster(1, 2))
		tab.apply(2, m.GetPoll(), time.Now())
		for _, q := range tab.list() {
			if q.node != 2 || q.pid.Home() == 0 || q.files[fileStat] == nil {
				t.Errorf("%+v", q)
			}
		}
	})
}

// fakePeers answers polls when it is let.
type fakePeers struct {
	mu    sync.Mutex
	polls map[id.Node]int
	slow  map[id.Node]chan struct{}
}

func (f *fakePeers) Poll(ctx context.Context, n id.Node, _ *PollRequest) (*PollReply, error) {
	f.mu.Lock()
	f.polls[n]++
	slow := f.slow[n]
	f.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	first, _ := n.Window()
	return &PollReply{Instance: 1, At: 1, Full: true, Processes: []*Process{message(int(first)+5, "a")}}, nil
}

func (f *fakePeers) Fetch(context.Context, id.Node, *FetchRequest) (*FetchReply, error) {
	return nil, errors.New("not asked")
}

// A node that was late is not waited for until it has answered, and is asked by one poll at a time.
func TestRefresh(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	open := make(chan struct{})
	peers := &fakePeers{polls: map[id.Node]int{}, slow: map[id.Node]chan struct{}{3: open}}
	tab := newTable(0)
	tab.setCluster(newCluster(1, 2, 3))
	ctx, cancel := context.WithCancel(context.Background())
	r := newRefresher(ctx, tab, peers, func(stale) {})
	var wg sync.WaitGroup
	wg.Go(r.run)
	t.Cleanup(func() { cancel(); wg.Wait() })
	r.refresh(ctx, listWait, false, false, 2, 3)
	within(t, 10*time.Second, func() error {
		if tab.find(two) == nil {
			return errors.New("node 2 is not known")
		}
		return nil
	})
	if tab.find(tri) != nil {
		t.Error("node 3 answered")
	}
	// Were it waited for, this would take an hour.
	r.refresh(ctx, time.Hour, false, false, 2, 3)
	r.refresh(ctx, time.Hour, false, false, 3)
	peers.mu.Lock()
	if n := peers.polls[3]; n != 1 {
		t.Errorf("node 3 was asked %d times at once", n)
	}
	peers.slow[3] = nil
	peers.mu.Unlock()
	close(open)
	r.refresh(ctx, 10*time.Second, true, false, 3)
	if tab.find(tri) == nil {
		t.Error("node 3 is not known")
	}
	r.refresh(ctx, time.Hour, false, false, 9) // nobody
}

// While somebody looks, what is known is kept up to date.
func TestKeepUp(t *testing.T) {
	peers := &fakePeers{polls: map[id.Node]int{}}
	tab := newTable(0)
	tab.setCluster(newCluster(1, 2))
	ctx, cancel := context.WithCancel(context.Background())
	r := newRefresher(ctx, tab, peers, func(stale) {})
	var wg sync.WaitGroup
	wg.Go(r.run)
	t.Cleanup(func() { cancel(); wg.Wait() })
	r.looked()
	within(t, 10*time.Second, func() error {
		peers.mu.Lock()
		defer peers.mu.Unlock()
		if peers.polls[2] < 2 {
			return errors.New("it is not polled")
		}
		return nil
	})
}
