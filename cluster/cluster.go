package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"ssi/cluster/core"
	"ssi/cluster/ics"
	"ssi/cluster/member"
	"ssi/cluster/pki"
	"ssi/cluster/raftlog"
	"ssi/cluster/registry"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// What messages of peers wait for the loop: so many, and of so many bytes.
const (
	maxInbox      = 8192
	maxInboxBytes = 64 << 20
)

// ErrRestart is what Run returns when the daemon has to start anew, with empty
// hands: the node was declared dead and joins again, or it was forced.
var ErrRestart = errors.New("the daemon has to start anew")

// Config is what a Cluster is made from.
type Config struct {
	Dir       string      // state directory, holding certificate and identity
	RunDir    string      // forgotten when the machine restarts
	HooksDir  string      // holds nodeup.d and nodedown.d
	Info      member.Info // name, address, classes
	MaxVoters int
	Log       *slog.Logger

	// OnServing is told when the node may serve and when it is fenced, in order.
	// What must have ended before another node may take over has ended when it
	// returns. It must be quick, and call nothing of the Cluster.
	OnServing func(Serving)
	// OnGone is told once for each life of a node that left the membership.
	OnGone func(n id.Node, cause string)
	// InitWork is what only the node that holds init does. Each runs while this
	// node holds it; its context ends with the hold, and it must return then: before
	// that, no other work of this node as init begins.
	InitWork []func(context.Context)
	// Machine, if set, is what this node tells of its machine when it is asked; see
	// Machines. It must be quick.
	Machine func() []byte

	snapshotEntries uint64 // core.Config.SnapshotEntries; for tests
}

// Cluster is this node's membership.
type Cluster struct {
	cfg      Config
	log      *slog.Logger
	ident    Identity
	self     id.Node
	material pki.Material
	timing   core.Timing
	inc      id.Incarnation

	transport *ics.Transport
	hub       *registry.Hub
	members   *Published[*member.View]
	status    *Published[core.Status]
	serving   *Published[Serving]
	revision  *Published[uint64]

	leaving atomic.Bool

	inbox      chan inbound
	inboxBytes atomic.Int64
	lost       chan id.Node // peers that messages did not reach
	calls      chan func()
	ended      chan struct{} // closed when the loop has ended

	// Owned by the loop.
	core    *core.Core
	store   *registry.Store
	disk    *raftlog.Log // nil without raft state
	fence   *fence
	addrs   peerFile // of the other nodes, as known at the start
	nextReq uint64
	stop    error // makes the loop end
	waiting map[uint64]chan core.Outcome

	compacting sync.WaitGroup // the goroutine that writes a snapshot
	snapshots  chan struct{}  // one place: who writes one

	tenures   []*tenure
	hooking   chan struct{} // one place: who runs hooks
	revokedAt uint64        // registry revision of the newest revocation seen; owned by the loop
}

type inbound struct {
	from id.Node
	at   time.Duration // boottime when it arrived
	size int64         // of its encoded form, in bytes
	msg  *core.Message
}

// New makes the node's membership from its state directory: it reads, and does
// not start anything. The caller registers services on Transport, then calls Run.
func New(cfg Config) (*Cluster, error) {
	ident, err := ReadIdentity(cfg.Dir)
	if err != nil {
		return nil, err
	}
	m, err := pki.Load(cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; without it nobody believes that this is node %d: restore it, or join anew: ssi cluster join", err, ident.Node)
	}
	if err != nil {
		return nil, err
	}
	who, err := pki.IdentityOf(m.Cert)
	if err != nil {
		return nil, err
	}
	if who.Cluster != ident.ID || who.Node != ident.Node {
		return nil, fmt.Errorf("%s: the certificate is of %v, %s of node %d of cluster %s; they do not belong together: restore them, or join anew: ssi cluster join",
			cfg.Dir, who, fileCluster, ident.Node, ident.ID)
	}
	timing, err := core.TimingFor(ident.Profile)
	if err != nil {
		return nil, err
	}
	inc, err := incarnation(filepath.Join(cfg.RunDir, fileIncarnation))
	if err != nil {
		return nil, fmt.Errorf("number of this start of the node: %w", err)
	}
	cfg.Info.Witness = ident.Witness
	cfg.Info.Capable = cfg.Info.Capable && !ident.Witness // a machine's configuration need not know that it only votes
	c := &Cluster{
		cfg: cfg, log: cfg.Log, ident: ident, self: ident.Node, material: m, timing: timing, inc: inc,
		store:     registry.NewStore(),
		members:   newPublished(&member.View{}),
		status:    newPublished(core.Status{Node: ident.Node, Reason: "starting"}),
		serving:   newPublished(Serving{Cause: "starting"}),
		revision:  newPublished(uint64(0)),
		inbox:     make(chan inbound, maxInbox),
		lost:      make(chan id.Node, id.MaxNode),
		calls:     make(chan func()),
		ended:     make(chan struct{}),
		waiting:   map[uint64]chan core.Outcome{},
		snapshots: make(chan struct{}, 1),
		hooking:   make(chan struct{}, 1),
	}
	c.hub = registry.NewHub(c.store.View())
	c.tenures = []*tenure{
		// The leader cleans up after the dead even if it is not a living member
		// itself: its own earlier life may be what is to be cleaned up.
		newTenure("leadership", func(s *core.Status) core.Hold { return s.Lead }, c.cleanUp),
		newTenure("init", func(s *core.Status) core.Hold { return s.Init },
			append([]func(context.Context){c.nodeup, c.expireLeases, c.oldTokens, c.forgetRevoked}, cfg.InitWork...)...),
	}
	c.fence = newFence(c.onServing, c.tenures...)
	c.transport, err = ics.New(ics.Config{
		Self: c.self, Incarnation: inc, Log: cfg.Log,
		Credentials: pki.NewCredentials(m, c.isRevoked),
		Control:     []string{probeService},
		Unreachable: c.unreachable,
		// Connections come back well within an election when a network heals.
		Limits: ics.Limits{MessageTimeout: timing.Election * 5 / 4, BackoffMax: timing.Election / 2},
	})
	if err != nil {
		return nil, err
	}
	c.transport.SetServing(false, "starting")
	c.transport.HandleMessages(c.receive)
	c.transport.HandleJoin(&joinService{c: c})
	c.registerProbe()
	return c, nil
}

// Self is this node's number.
func (c *Cluster) Self() id.Node { return c.self }

// Incarnation is the number of this life of the node: that of this process, even
// when the cluster has declared it dead already.
func (c *Cluster) Incarnation() id.Incarnation { return c.inc }

// Identity is which cluster this is.
func (c *Cluster) Identity() Identity { return c.ident }

// Transport is the node's internode communication.
func (c *Cluster) Transport() *ics.Transport { return c.transport }

// NodeLease is how long a node may serve after it last had contact.
func (c *Cluster) NodeLease() time.Duration { return c.timing.NodeLease }

// Members is the membership as far as this node knows.
func (c *Cluster) Members() *Published[*member.View] { return c.members }

// Status is what the core says of this node.
func (c *Cluster) Status() *Published[core.Status] { return c.status }

// Serving says whether this node may serve.
func (c *Cluster) Serving() *Published[Serving] { return c.serving }

// Revision is that of the registry as this node knows it.
func (c *Cluster) Revision() *Published[uint64] { return c.revision }

// Registry is the replicated registry.
func (c *Cluster) Registry() Registry { return Registry{c} }

// Run takes part in the cluster, with connections from l, until ctx ends (then
// it leaves without a word, as a crash would: see Leave), or until it cannot go
// on; ErrRestart means that the daemon is to start anew.
func (c *Cluster) Run(ctx context.Context, l net.Listener) error {
	c.addrs = c.readPeers()
	if err := c.openCore(); err != nil {
		close(c.ended)
		c.closeDisk()
		return errors.Join(err, l.Close(), c.transport.Close())
	}
	c.adopt(c.core.View())

	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.fence.run(ctx); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() {
		if err := c.transport.Serve(l); err != nil {
			cancel(fmt.Errorf("serve other nodes: %w", err))
		}
	})
	for _, t := range c.tenures {
		wg.Go(func() { t.run(ctx, c.log) })
	}
	wg.Go(func() { c.goUp(ctx) })
	wg.Go(func() { c.found(ctx) })
	wg.Go(func() { c.savePeers(ctx, c.addrs) })
	err := c.loop(ctx)

	close(c.ended) // calls that wait for the loop give up
	cancel(err)
	c.hub.Close(errno.New(errno.Unavailable, "registry", c.self, "the daemon is stopping"))
	err = errors.Join(err, c.transport.Close())
	wg.Wait()
	c.closeDisk()
	return err
}

// openCore makes the core from what is on the disk.
func (c *Cluster) openCore() error {
	cfg := core.Config{
		Cluster: c.ident.ID, Self: c.self, Incarnation: c.inc, Info: c.cfg.Info, Timing: c.timing,
		Seed: rand.Uint64(), MaxVoters: c.cfg.MaxVoters, SnapshotEntries: c.cfg.snapshotEntries,
	}
	dir := filepath.Join(c.cfg.Dir, dirRaft)
	disk, err := raftlog.Open(dir, raftlog.Identity{Cluster: c.ident.ID, Node: c.self}, c.log)
	switch {
	case err == nil:
		ident := disk.Identity()
		cfg.RaftID, cfg.Recovery, cfg.Storage = ident.RaftID, ident.Recovery, disk.Storage()
		c.disk = disk
	case errors.Is(err, fs.ErrNotExist):
		var f founding
		ferr := readJSON(filepath.Join(c.cfg.Dir, fileFounding), &f)
		if ferr != nil && !errors.Is(ferr, fs.ErrNotExist) {
			return ferr
		}
		if ferr == nil {
			cfg.Bootstrap = true
			cfg.RaftID, cfg.Recovery = core.FirstRaftID(c.self), core.NextRecovery(0, c.self)
			if c.disk, err = raftlog.Create(dir, c.diskIdentity(cfg.RaftID, cfg.Recovery), nil, c.log); err != nil {
				return err
			}
			cfg.Storage = c.disk.Storage()
		}
	default:
		return err
	}
	cfg.Contacts = c.contacts()
	c.core, err = core.New(cfg, c.store)
	return err
}

func (c *Cluster) diskIdentity(raftID, recovery uint64) raftlog.Identity {
	return raftlog.Identity{Cluster: c.ident.ID, Node: c.self, RaftID: raftID, Recovery: recovery}
}

func (c *Cluster) closeDisk() {
	if c.disk == nil {
		return
	}
	if err := c.disk.Close(); err != nil {
		c.log.Error("close the log", "err", err)
	}
}

// onServing passes the fence on.
func (c *Cluster) onServing(s Serving) {
	if s.OK {
		c.log.Info("serving")
	} else {
		c.log.Warn("not serving", "cause", s.Cause)
	}
	c.transport.SetServing(s.OK, s.Cause)
	if c.cfg.OnServing != nil {
		c.cfg.OnServing(s)
	}
	c.serving.set(s)
}
