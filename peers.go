package main

import (
	"context"
	"errors"
	"net"

	"google.golang.org/protobuf/proto"

	"ssi/cluster"
	"ssi/cluster/member"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// opener is the other nodes as rexec wants them.
type opener struct{ c *cluster.Cluster }

// OpenBulk opens a stream to another node. Its errors are for users.
func (o opener) OpenBulk(ctx context.Context, n id.Node, kind string, header []byte) (net.Conn, error) {
	node := o.c.Members().Load().Get(n)
	if node.Info.Witness {
		return nil, errno.New(errno.Unavailable, "", n, "it is a witness, which runs no programs")
	}
	s, err := o.c.Transport().OpenBulk(ctx, n, kind, header)
	if err == nil {
		return s, nil
	}
	var e *errno.Error
	switch {
	case !errors.As(err, &e) || n == o.c.Self():
		return nil, err
	case node.State == member.NeverUp:
		return nil, errno.New(errno.NotFound, "", n, "no such node in the cluster; `ssi cluster` lists those there are")
	case !node.State.Alive():
		text := node.State.String()
		if node.Cause != "" {
			text += ": " + node.Cause
		}
		return nil, errno.New(errno.Unavailable, "", n, "it is %s; start it, or choose one that `ssi cluster` shows UP", text)
	}
	return nil, &errno.Error{Node: e.Node, Kind: e.Kind, Text: e.Text, Err: err} // what is opened says nothing to a user
}

// processCluster is the cluster as the process list wants it.
type processCluster struct{ c *cluster.Cluster }

// Self is this node.
func (p processCluster) Self() id.Node { return p.c.Self() }

// Nodes is the nodes that are UP.
func (p processCluster) Nodes() []id.Node {
	return upNodes(p.c.Members().Load())
}

// upNodes is the nodes of a view that are UP and run programs.
func upNodes(v *member.View) []id.Node {
	var up []id.Node
	for _, n := range v.Nodes {
		if n.State == member.Up && !n.Info.Witness {
			up = append(up, n.Node)
		}
	}
	return up
}

// Call asks a node.
func (p processCluster) Call(ctx context.Context, n id.Node, method string, req, reply proto.Message) error {
	return p.c.Transport().Call(ctx, n, method, req, reply)
}

// Stream asks a node for a list.
func (p processCluster) Stream(ctx context.Context, n id.Node, method string, req proto.Message, take func([]byte) error) error {
	return p.c.Transport().Stream(ctx, n, method, req, take)
}
