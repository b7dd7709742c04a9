package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"ssi/internal/errno"
)

// Client is a connection to the node daemon. It serves one call at a time and
// is not safe for concurrent use.
type Client struct {
	conn *net.UnixConn
	r    *bufio.Reader
}

// Dial connects to the node daemon of this machine: to the socket that SSI_SOCKET
// names, or to Socket.
func Dial(ctx context.Context) (*Client, error) {
	path := os.Getenv(SocketEnv)
	if path == "" {
		path = Socket
	}
	return DialPath(ctx, path)
}

// DialPath connects to the daemon that listens at path, at most 107 bytes long.
func DialPath(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, errno.New(errno.Unavailable, "connect", 0,
			"no ssi daemon on this machine (%s): start it with `ssi cluster init` or `ssi cluster join`, or try `ssi lab`", path)
	case err != nil:
		return nil, errno.New(errno.Unavailable, "connect", 0, "%w", err)
	}
	return &Client{conn: conn.(*net.UnixConn), r: bufio.NewReader(conn)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// begin sends the call and makes ctx cut the connection when it ends.
func (c *Client) begin(ctx context.Context, method string, params any, more, upgrade bool) (stop func() bool, err error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	stop = context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	if err := writeMessage(c.conn, call{Method: method, Parameters: raw, More: more, Upgrade: upgrade}); err != nil {
		stop()
		return nil, lost(ctx, method, err)
	}
	return stop, nil
}

func (c *Client) next(ctx context.Context, method string) (reply, error) {
	var rep reply
	if err := readMessage(c.r, &rep); err != nil {
		return rep, lost(ctx, method, err)
	}
	if rep.Error != "" {
		var f failure
		if err := json.Unmarshal(rep.Parameters, &f); err != nil || f.Text == "" {
			f.Text = rep.Error
		}
		return rep, f.err()
	}
	return rep, nil
}

// Call sends params to method and decodes the reply into result, which may be
// nil.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	stop, err := c.begin(ctx, method, params, false, false)
	if err != nil {
		return err
	}
	defer stop()
	rep, err := c.next(ctx, method)
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal(rep.Parameters, result)
}

// Stream sends params to method and calls f for each reply until the last.
func (c *Client) Stream(ctx context.Context, method string, params any, f func(json.RawMessage) error) error {
	stop, err := c.begin(ctx, method, params, true, false)
	if err != nil {
		return err
	}
	defer stop()
	for {
		rep, err := c.next(ctx, method)
		if err != nil {
			return err
		}
		if len(rep.Parameters) > 0 {
			if err := f(rep.Parameters); err != nil {
				return err
			}
		}
		if !rep.Continues {
			return nil
		}
	}
}

// Upgrade sends params to method and, once it agreed, hands over the connection,
// which then speaks the protocol of that method. The Client is used up.
func (c *Client) Upgrade(ctx context.Context, method string, params, result any) (net.Conn, error) {
	stop, err := c.begin(ctx, method, params, false, true)
	if err != nil {
		return nil, err
	}
	rep, err := c.next(ctx, method)
	if !stop() && err == nil {
		err = lost(ctx, method, ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	if result != nil {
		if err := json.Unmarshal(rep.Parameters, result); err != nil {
			return nil, fmt.Errorf("%s: %w", method, err)
		}
	}
	return &upgraded{UnixConn: c.conn, r: c.r}, nil
}

// upgraded is a connection whose first bytes may lie in the reader already.
type upgraded struct {
	*net.UnixConn
	r *bufio.Reader
}

func (u *upgraded) Read(p []byte) (int, error) {
	if u.r.Buffered() > 0 {
		return u.r.Read(p)
	}
	return u.UnixConn.Read(p)
}

// WriteTo hides the embedded method, which would skip what the reader holds.
func (u *upgraded) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{u})
}

// lost explains a connection that ended in the middle of a call.
func lost(ctx context.Context, method string, err error) error {
	if ctx.Err() != nil {
		return errno.New(errno.Timeout, method, 0, "%w", context.Cause(ctx))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return errno.New(errno.Unavailable, method, 0, "the ssi daemon of this machine ended the connection (it is restarting or shutting down); try again")
	}
	return errno.New(errno.Other, method, 0, "%w", err)
}
