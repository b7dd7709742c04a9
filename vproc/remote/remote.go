package remote

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"ssi/cluster/member"
	"ssi/internal/id"
	"ssi/vproc/call"
)

// Peers is the other nodes.
type Peers interface {
	// Nodes is those that are UP and run programs, this one too if it is.
	Nodes() []id.Node
	// Call asks a node. It ends with an error when the node leaves the membership.
	Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error
}

// Config is what a Remote is made of.
type Config struct {
	Self  id.Node
	Peers Peers
	Log   *slog.Logger
	// Dir is a directory for what outlives the daemon, on a file system in memory and
	// for this alone. It is made if it is not there.
	Dir string
	// Protected, if set, lists the processes of this node, beside this one, that no
	// call to a group, a user or everyone reaches: the roles of ssi, and what stands
	// here for a process of another node. PID 1 is safe by the kernel. It is asked for
	// each such call.
	Protected func() []int
	// Lives, if set, tells what this node knows by itself of processes that do not live
	// in the window of their PID: this node for a PID of another one that was placed here,
	// and the other node for a PID of this one whose process was placed there, so that
	// something here (its surrogate) holds its number. ok is false for all others. It is
	// asked for nearly each call and must not wait.
	Lives func(pid id.PID) (n id.Node, ok bool)
	// Name is that of the cluster, and Members its membership, for the cluster's own
	// calls.
	Name    string
	Members func() *member.View
}

// callTime is how long a call may take whose context has no deadline.
const callTime = 30 * time.Second

// Remote executes calls that concern processes of other nodes, and those of other
// nodes that concern processes of this one.
type Remote struct {
	self    id.Node
	cfg     Config
	log     *slog.Logger
	caps    uint64 // of this process: a deputy gets no others
	root    bool   // this process is root with all of caps in effect
	boot    uint64
	turns   turns
	answers *answers
	files   *files

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	calls  sync.WaitGroup // under way; Add only under mu while not closed

	mu     sync.Mutex
	closed bool
	waits  map[id.Node]int
}

// New opens what an earlier daemon left and makes a Remote. The caller must close
// it.
func New(c Config) (*Remote, error) {
	if !c.Self.Valid() {
		return nil, fmt.Errorf("remote: %d is not a node", c.Self)
	}
	m := &Remote{self: c.Self, cfg: c, log: c.Log, turns: turns{held: map[int]*turn{}}, waits: map[id.Node]int{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	var err error
	if m.caps, m.root, err = capabilities(); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if m.boot, err = bootNumber(); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	dir, err := filepath.EvalSymlinks(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if m.answers, err = openAnswers(dir, c.Log); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if m.files, err = m.openFiles(filepath.Join(dir, "pidfds")); err != nil {
		m.answers.close()
		return nil, fmt.Errorf("remote: %w", err)
	}
	return m, nil
}

// Close ends the watching of processes and waits for the calls under way, which
// end soon. What is called after it fails.
func (m *Remote) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.calls.Wait()
	m.files.close()
	m.answers.close()
}

// enter begins a call. If ok, its end is to be told by leave, and ctx ends with the
// Remote too.
func (m *Remote) enter(parent context.Context, limit time.Duration) (ctx context.Context, leave func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, nil, false
	}
	m.calls.Add(1)
	ctx, cancel := context.WithTimeout(parent, limit)
	stop := context.AfterFunc(m.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		m.calls.Done()
	}, true
}

// NodeDown tells that a node has left the membership: its processes have ended.
// Calls under way see it by Peers.
func (m *Remote) NodeDown(n id.Node) { m.files.again(n) }

// capabilities are those of this process. root tells that a deputy for a root that
// has them too need not change anything.
func capabilities() (caps uint64, root bool, err error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	err = unix.Capget(&h, &d[0])
	caps = uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32
	inEffect := uint64(d[0].Effective) | uint64(d[1].Effective)<<32
	root = caps == inEffect && os.Getuid() == 0 && os.Geteuid() == 0 && os.Getgid() == 0 && os.Getegid() == 0
	return caps, root, err
}

// Handle decides about a caught call, and has it carried out.
func (m *Remote) Handle(ctx context.Context, r *call.Request) call.Outcome {
	ctx, leave, ok := m.enter(ctx, callTime)
	if !ok {
		return call.Fail(unix.ETIMEDOUT)
	}
	defer leave()
	if o, ok := m.Quick(r); ok {
		return o
	}
	switch t := r.Target(); t.Kind {
	case call.OfProcess:
		return m.toProcess(ctx, r, id.PID(t.ID))
	case call.ByFile:
		return m.toFile(ctx, r)
	default:
		return m.toMany(ctx, r, t)
	}
}

// toProcess is for a call that means a process of another node. A surrogate means
// itself by its own PID.
func (m *Remote) toProcess(ctx context.Context, r *call.Request, pid id.PID) call.Outcome {
	switch {
	case manner(r) == refused:
		return m.refuse(ctx, r)
	case id.PID(r.Caller.PID) == pid:
		return call.Outcome{Continue: true}
	case r.Nr == call.PidfdOpen:
		return m.openFile(ctx, r, pid)
	}
	reply, at := m.askPlace(ctx, pid, m.place(pid), ask{r: r})
	if at == m.self {
		return call.Outcome{Continue: true}
	}
	return call.Outcome{Reply: reply}
}
