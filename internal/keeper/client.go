package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
)

// requestTime is how long PID 1 may take to answer.
const requestTime = 5 * time.Second

// ErrLost is the cause when PID 1 is not there (any more).
var ErrLost = errors.New("the connection to PID 1 is lost")

// Client is a role's side of the connection. Its methods are safe for
// concurrent use.
type Client struct {
	conn    *net.UnixConn
	log     *slog.Logger
	answers chan answer
	done    chan struct{} // closed when the reader has ended
	kept    chan struct{} // of capacity 1: another role left a file

	mu sync.Mutex // one request at a time
}

type answer struct {
	result Result
	text   string
	files  []*os.File
}

// Open takes the connection that PID 1 gave to this process and calls onExit
// for every process that PID 1 reaped, one at a time, in order; onExit must
// not block. Only the node role is told of exits. It removes the variable, so that children do not see it.
func Open(log *slog.Logger, onExit func(proc.Exit)) (*Client, error) {
	v, ok := os.LookupEnv(FDEnv)
	if !ok {
		return nil, errors.New("this process was not started by the init role of ssi (`ssi init` starts it)")
	}
	_ = os.Unsetenv(FDEnv)
	fd, err := strconv.Atoi(v)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: not a descriptor", FDEnv, v)
	}
	unix.CloseOnExec(fd)
	return New(os.NewFile(uintptr(fd), "keeper"), log, onExit)
}

// New makes a client of a connection; it takes f.
func New(f *os.File, log *slog.Logger, onExit func(proc.Exit)) (*Client, error) {
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, fmt.Errorf("connection to PID 1: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("connection to PID 1: not a unix socket")
	}
	k := &Client{conn: conn, log: log, answers: make(chan answer, 1), done: make(chan struct{}), kept: make(chan struct{}, 1)}
	go k.read(onExit)
	return k, nil
}

// Close ends the connection and waits for its goroutine.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Kept tells the node role, after it was opened, that another role left a file.
func (c *Client) Kept() <-chan struct{} { return c.kept }

func (c *Client) read(onExit func(proc.Exit)) {
	defer close(c.done)
	buf := make([]byte, MaxPacket)
	for {
		n, files, err := Receive(c.conn, buf)
		if err != nil || n == 0 {
			if !errors.Is(err, net.ErrClosed) {
				c.log.Error("PID 1 is gone", "op", "keeper", "err", err)
			}
			return
		}
		switch {
		case buf[0] == tagExit && n == exitLen:
			CloseAll(files)
			onExit(decodeExit(buf))
		case buf[0] == tagKept && n == 1:
			CloseAll(files)
			select {
			case c.kept <- struct{}{}:
			default:
			}
		case buf[0] == tagAnswer && n >= 2:
			select {
			case c.answers <- answer{Result(buf[1]), string(buf[2:n]), files}:
			default: // nobody asked
				CloseAll(files)
			}
		default:
			CloseAll(files)
			c.log.Error("message of PID 1 not understood", "op", "keeper", "bytes", n)
		}
	}
}

// ask sends one request and returns the file of the answer, if any.
func (c *Client) ask(op Op, arg string, rights []byte) (*os.File, error) {
	a, err := c.request(op, arg, rights)
	if err != nil || len(a.files) == 0 {
		return nil, err
	}
	CloseAll(a.files[1:])
	return a.files[0], nil
}

// request sends one request and returns the answer; after an error that has no
// files.
func (c *Client) request(op Op, arg string, rights []byte) (answer, error) {
	if len(arg) > MaxName {
		return answer{}, fmt.Errorf("keeper: name of %d bytes, at most %d", len(arg), MaxName)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(requestTime))
	if _, _, err := c.conn.WriteMsgUnix(append([]byte{byte(op)}, arg...), rights, nil); err != nil {
		return answer{}, fmt.Errorf("keeper: %w: %w", ErrLost, err)
	}
	t := time.NewTimer(requestTime)
	defer t.Stop()
	select {
	case a := <-c.answers:
		if err := a.result.Err(); err != nil {
			CloseAll(a.files)
			return answer{}, err
		}
		return a, nil
	case <-c.done:
		return answer{}, fmt.Errorf("keeper: %w", ErrLost)
	case <-t.C:
		_ = c.conn.Close() // a late answer would be taken for that of the next request
		return answer{}, fmt.Errorf("keeper: no answer in %s: %w", requestTime, ErrLost)
	}
}

// Put gives PID 1 a duplicate of f to keep under name, instead of what it kept
// there.
func (c *Client) Put(name string, f *os.File) error {
	raw, err := f.SyscallConn() // not Fd, which would make the file blocking
	if err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	if cerr := raw.Control(func(fd uintptr) { _, err = c.ask(OpPut, name, unix.UnixRights(int(fd))) }); cerr != nil {
		return fmt.Errorf("keeper: %w", cerr)
	}
	return err
}

// Take returns a duplicate of the file kept under name, or fs.ErrNotExist.
func (c *Client) Take(name string) (*os.File, error) {
	f, err := c.ask(OpTake, name, nil)
	if err == nil && f == nil {
		err = errors.New("keeper: PID 1 sent no file")
	}
	return f, err
}

// Names returns the names that begin with prefix and are kept, in order.
func (c *Client) Names(prefix string) ([]string, error) {
	var names []string
	for after := prefix; len(names) < MaxFiles; {
		a, err := c.request(OpNext, after, nil)
		CloseAll(a.files)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return names, nil
		case err != nil:
			return names, err
		case a.text <= after || !strings.HasPrefix(a.text, prefix):
			return names, nil
		}
		names = append(names, a.text)
		after = a.text
	}
	return names, nil
}

// Drop makes PID 1 close what it keeps under name; nothing kept is no error.
func (c *Client) Drop(name string) error {
	_, err := c.ask(OpDrop, name, nil)
	return err
}

// Shutdown asks PID 1 to end this node in order. It returns as soon as PID 1
// has begun; SIGTERM to this process follows.
func (c *Client) Shutdown(e Ending) error {
	_, err := c.ask(OpEnd, string([]byte{byte(e)}), nil)
	return err
}

// SwitchRoot has PID 1 make the new root file system, which is mounted, the root
// and execute this program of it, as soon as the calling role, boot, has ended
// with status 0.
func (c *Client) SwitchRoot(program string) error {
	_, err := c.ask(OpSwitchRoot, program, nil)
	return err
}

// Watchdog has PID 1 arm the hardware watchdog: it resets the machine when PID 1
// is silent for t, from a second up. Only the role boot may ask.
func (c *Client) Watchdog(t time.Duration) error {
	seconds := uint32(max(t/time.Second, 1))
	_, err := c.ask(OpWatchdog, string(binary.BigEndian.AppendUint32(nil, seconds)), nil)
	return err
}

// RestartSpawn makes PID 1 kill the spawn role and start it anew.
func (c *Client) RestartSpawn() error {
	_, err := c.ask(OpRespawn, "", nil)
	return err
}

// Ready tells PID 1 that the node serves. Only the node role may.
func (c *Client) Ready() error {
	_, err := c.ask(OpReady, "", nil)
	return err
}

// Listen returns the listener kept under name if it has this address, or makes
// one and has it kept. Closing it leaves the kept one open: peers that connect
// wait for the next node role. network is "tcp" or "unix".
func (c *Client) Listen(name, network, addr string) (net.Listener, error) {
	f, err := c.Take(name)
	switch {
	case err == nil:
		l, lerr := net.FileListener(f)
		_ = f.Close()
		if lerr == nil && sameAddr(l.Addr(), network, addr) {
			if u, ok := l.(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false)
			}
			return l, nil
		}
		if lerr == nil {
			_ = l.Close()
		}
		if err := c.Drop(name); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return c.listen(name, network, addr)
}

// sameAddr reports whether a listener at have serves those who call addr.
func sameAddr(have net.Addr, network, addr string) bool {
	if h, ok := have.(*net.TCPAddr); ok {
		want, err := net.ResolveTCPAddr(network, addr)
		any := func(ip net.IP) bool { return ip == nil || ip.IsUnspecified() }
		return err == nil && want.Port == h.Port && (want.IP.Equal(h.IP) || any(want.IP) && any(h.IP))
	}
	_, err := os.Lstat(addr) // a unix socket whose file is gone serves nobody
	return err == nil && have.Network() == network && have.String() == addr
}

func (c *Client) listen(name, network, addr string) (net.Listener, error) {
	if network == "unix" {
		if err := os.Remove(addr); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an earlier life of the machine
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	filer, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		return l, nil
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	f, err := filer.File()
	if err == nil {
		err = c.Put(name, f)
		_ = f.Close()
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen %s %s: %w", network, addr, err)
	}
	return l, nil
}
