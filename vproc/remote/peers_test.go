package remote

import (
	"context"
	"errors"
	"net"
	"net/rpc"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// link is the way to the daemon of a node.
type link struct {
	node   id.Node
	socket string

	mu     sync.Mutex
	client *rpc.Client
}

func socketOf(dir string, n id.Node) string { return filepath.Join(dir, "socket"+n.String()) }

// peers is the cluster as node 1 sees it: itself and, while it is up, node 2.
type peers struct {
	link
	down   atomic.Bool
	hook   atomic.Pointer[func(method string) error] // called before each call, if set
	direct *Remote                                   // node 2, if it is in this process
}

// setHook also serves while calls are under way.
func (p *peers) setHook(f func(method string) error) { p.hook.Store(&f) }

func (p *peers) Nodes() []id.Node {
	if p.down.Load() || p.socket == "" {
		return []id.Node{1}
	}
	return []id.Node{1, 2}
}

func (p *link) connect() (*rpc.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		return p.client, nil
	}
	c, err := net.Dial("unix", p.socket)
	if err != nil {
		return nil, err
	}
	p.client = rpc.NewClient(c)
	return p.client, nil
}

func (p *link) drop(c *rpc.Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == c {
		p.client = nil
		_ = c.Close()
	}
}

// do calls a method of Home; an error of the connection is Unavailable.
func (p *link) do(ctx context.Context, method string, args, reply any) error {
	c, err := p.connect()
	if err != nil {
		return errno.New(errno.Unavailable, method, p.node, "%w", err)
	}
	select {
	case done := <-c.Go("Home."+method, args, reply, make(chan *rpc.Call, 1)).Done:
		var server rpc.ServerError
		if done.Error != nil && !errors.As(done.Error, &server) {
			p.drop(c)
			return errno.New(errno.Unavailable, method, p.node, "%w", done.Error)
		}
		if done.Error != nil {
			return errno.New(errno.Invalid, method, p.node, "%w", done.Error)
		}
		return nil
	case <-ctx.Done():
		return errno.New(errno.Unavailable, method, p.node, "%w", ctx.Err())
	}
}

func (p *peers) Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error {
	if n != 2 || p.down.Load() {
		return errno.New(errno.Unavailable, method, n, "down")
	}
	if hook := p.hook.Load(); hook != nil {
		if err := (*hook)(method); err != nil {
			return err
		}
	}
	if p.direct != nil && method == methodCall {
		out, err := p.direct.ServeCall(ctx, 1, req.(*wrapperspb.BytesValue).GetValue())
		reply.(*wrapperspb.BytesValue).Value = out
		return err
	}
	return p.pass(ctx, 1, method, req, reply)
}

// pass sends a message of node from.
func (p *link) pass(ctx context.Context, from id.Node, method string, req, reply proto.Message) error {
	var out []byte
	err := p.do(ctx, method[strings.LastIndexByte(method, '/')+1:], Message{from, req.(*wrapperspb.BytesValue).GetValue()}, &out)
	if err == nil { // else the answer may come yet
		reply.(*wrapperspb.BytesValue).Value = out
	}
	return err
}

// mesh is the cluster of three nodes as one of them sees it; a node that is not
// there is down.
type mesh struct {
	self  id.Node
	links map[id.Node]*link
}

func newMesh(self id.Node, dir string) *mesh {
	m := &mesh{self: self, links: map[id.Node]*link{}}
	for n := id.Node(1); n <= 3; n++ {
		m.links[n] = &link{node: n, socket: socketOf(dir, n)}
	}
	return m
}

func (m *mesh) Nodes() []id.Node { return []id.Node{1, 2, 3} }

func (m *mesh) Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error {
	return m.links[n].pass(ctx, m.self, method, req, reply)
}
