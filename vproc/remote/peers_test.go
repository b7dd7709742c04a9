package remote

import (
	"context"
	"errors"
	"net"
	"net/rpc"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// peers is the cluster as node 1 sees it: itself and, while it is up, node 2.
type peers struct {
	socket string
	down   atomic.Bool
	hook   atomic.Pointer[func(method string) error] // called before each call, if set
	direct *Remote                                   // node 2, if it is in this process

	mu     sync.Mutex
	client *rpc.Client
}

// setHook also serves while calls are under way.
func (p *peers) setHook(f func(method string) error) { p.hook.Store(&f) }

func (p *peers) Nodes() []id.Node {
	if p.down.Load() || p.socket == "" {
		return []id.Node{1}
	}
	return []id.Node{1, 2}
}

func (p *peers) connect() (*rpc.Client, error) {
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

func (p *peers) drop(c *rpc.Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == c {
		p.client = nil
		_ = c.Close()
	}
}

// do calls a method of Home; an error of the connection is Unavailable.
func (p *peers) do(ctx context.Context, method string, args, reply any) error {
	c, err := p.connect()
	if err != nil {
		return errno.New(errno.Unavailable, method, 2, "%w", err)
	}
	select {
	case done := <-c.Go("Home."+method, args, reply, make(chan *rpc.Call, 1)).Done:
		var server rpc.ServerError
		if done.Error != nil && !errors.As(done.Error, &server) {
			p.drop(c)
			return errno.New(errno.Unavailable, method, 2, "%w", done.Error)
		}
		if done.Error != nil {
			return errno.New(errno.Invalid, method, 2, "%w", done.Error)
		}
		return nil
	case <-ctx.Done():
		return errno.New(errno.Unavailable, method, 2, "%w", ctx.Err())
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
	var out []byte
	err := p.do(ctx, method[strings.LastIndexByte(method, '/')+1:], Message{1, req.(*wrapperspb.BytesValue).GetValue()}, &out)
	reply.(*wrapperspb.BytesValue).Value = out
	return err
}
