package tftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// chunk is how many bytes of the file are read at once.
	chunk = 64 << 10
	// overhead is what IPv4 and UDP add to a datagram.
	overhead = 28
	// abortCode is with what UEFI ends a transfer once it knows the size.
	abortCode = codeBadOption
)

// The causes when the server ends a transfer.
var (
	errEnded   = errors.New("the server was stopped")
	errEvicted = errors.New("the client did not answer, and others wait")
)

// transfer sends one file to one client.
type transfer struct {
	client netip.AddrPort
	limits Limits
	begun  time.Time

	file    io.ReadSeekCloser
	content io.ReaderAt
	size    int64
	req     request
	block   int64
	win     window

	packet []byte // to send
	buf    []byte // a part of the file, from bufAt
	bufAt  int64
	answer []byte

	heard atomic.Bool // the client answered: its address is real

	mu     sync.Mutex // guards fd against cancel
	fd     int        // blocking socket, connected to the client; -1 when closed
	ending error      // why the server ends it
}

// open prepares a transfer.
func (t *transfer) open(s *Server, r request, local netip.Addr) error {
	file, size, err := s.find(t.client.Addr(), r.name)
	if err != nil {
		return err
	}
	t.file, t.size, t.req = file, size, r
	content, ok := file.(io.ReaderAt)
	if !ok {
		return fmt.Errorf("%q: the content cannot be read at an offset", r.name)
	}
	t.content = content
	if err := t.connect(local); err != nil {
		return err
	}
	t.block = DefaultBlock
	if r.block > 0 {
		// A fragment that is lost loses the datagram, and firmware often cannot
		// put fragments together: no more than fits (RFC 2348 lets us answer less).
		mtu, err := unix.GetsockoptInt(t.fd, unix.IPPROTO_IP, unix.IP_MTU)
		if err != nil {
			return fmt.Errorf("MTU: %w", err)
		}
		t.block = int64(min(r.block, max(mtu-overhead-4, DefaultBlock)))
		t.req.block = int(t.block)
	}
	t.win = newWindow(size, t.block, r.window, r.options())
	t.packet, t.answer = make([]byte, 4+t.block), make([]byte, MaxRequest)
	return nil
}

// connect opens the socket of the transfer: its port is the server's transfer
// identifier (RFC 1350), its address the one that was asked.
func (t *transfer) connect(local netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	t.mu.Lock()
	t.fd = fd // closed by remove from here on
	t.mu.Unlock()
	if local.Is4() {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4()}); err != nil {
			return fmt.Errorf("bind %s: %w", local, err)
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(t.client.Port()), Addr: t.client.Addr().As4()}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	// A client that does not read must not stop us, either.
	wait := unix.NsecToTimeval(int64(t.limits.Wait))
	for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &wait); err != nil {
			return fmt.Errorf("timeout of the socket: %w", err)
		}
	}
	return nil
}

// cancel makes run end soon, with this cause.
func (t *transfer) cancel(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ending = cause
	if t.fd >= 0 {
		_ = unix.Shutdown(t.fd, unix.SHUT_RD) // a wait for an answer returns
	}
}

func (t *transfer) ended() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ending
}

func (t *transfer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd >= 0 {
		_ = unix.Close(t.fd)
		t.fd = -1
	}
	if t.file != nil {
		_ = t.file.Close()
	}
}

// run sends the file and reports.
func (t *transfer) run() Transfer {
	err := t.send()
	r := Transfer{Client: t.client, Name: t.req.name, Size: t.size, Duration: time.Since(t.begun), Err: err}
	r.Bytes = min(max(t.win.acked, 0)*t.block, t.size)
	var told clientError
	switch {
	case err == nil:
	case errors.As(err, &told):
		// Nothing was sent but the size, or the first window of the file: clients
		// that only ask for the size stop then, with whatever code.
		if t.req.tsize && (t.win.acked <= 0 || told.code == abortCode) {
			r.Probe, r.Err = true, nil
		}
	default:
		_, _ = unix.Write(t.fd, encodeError(codeUndefined, "the transfer is given up: "+err.Error()))
	}
	return r
}

// clientError is what a client says when it ends a transfer.
type clientError struct {
	code uint16
	text string
}

func (e clientError) Error() string {
	return fmt.Sprintf("the client ended the transfer: code %d %q", e.code, e.text)
}

func (t *transfer) send() error {
	end := t.begun.Add(t.limits.Total)
	for tries := 0; ; {
		if err := t.sendWindow(); err != nil {
			return err
		}
		news, err := t.await()
		switch {
		case err != nil:
			return err
		case t.win.done():
			return nil
		case time.Now().After(end):
			return fmt.Errorf("it takes longer than %s", t.limits.Total)
		case news:
			tries = 0
		default:
			if tries++; tries > t.limits.Retries {
				return fmt.Errorf("the client did not answer %d times for %s", tries, t.limits.Wait)
			}
			t.win.again()
		}
	}
}

// sendWindow sends all that may be sent now.
func (t *transfer) sendWindow() error {
	if t.win.negotiating() {
		return t.write(t.req.oack(t.size))
	}
	for {
		n, ok := t.win.next()
		if !ok {
			return nil
		}
		b, err := t.data(n)
		if err != nil {
			return err
		}
		if err := t.write(b); err != nil {
			return err
		}
	}
}

// data encodes a block.
func (t *transfer) data(n int64) ([]byte, error) {
	binary.BigEndian.PutUint16(t.packet, opData)
	binary.BigEndian.PutUint16(t.packet[2:], uint16(n))
	from := (n - 1) * t.block
	to := min(from+t.block, t.size)
	if from < t.bufAt || to > t.bufAt+int64(len(t.buf)) {
		if t.buf == nil {
			t.buf = make([]byte, min(chunk+t.block, t.size))
		}
		t.bufAt, t.buf = from, t.buf[:min(int64(cap(t.buf)), t.size-from)]
		got, err := t.content.ReadAt(t.buf, from)
		if got < len(t.buf) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the file is shorter than it was
			}
			t.buf = t.buf[:0]
			return nil, fmt.Errorf("read at %d: %w", from, err)
		}
	}
	copied := copy(t.packet[4:], t.buf[from-t.bufAt:to-t.bufAt])
	return t.packet[:4+copied], nil
}

// write sends a datagram; one that cannot leave now counts as lost.
func (t *transfer) write(b []byte) error {
	for {
		_, err := unix.Write(t.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
			return nil
		default:
			return fmt.Errorf("send: %w", err)
		}
	}
}

// await waits for news of the client and reports whether there are. Datagrams
// that are none do not make the wait longer.
func (t *transfer) await() (bool, error) {
	deadline := time.Now().Add(t.limits.Wait)
	for {
		n, err := unix.Read(t.fd, t.answer)
		cause := t.ended()
		switch {
		case cause != nil:
			return false, cause
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case err != nil: // ECONNREFUSED: the client has gone
			return false, fmt.Errorf("receive: %w", err)
		default:
			r, ok := parseReply(t.answer[:n])
			if ok && !r.ack {
				return false, clientError{r.code, r.text}
			}
			if ok && t.win.ack(r.block) {
				t.heard.Store(true)
				return true, nil
			}
		}
		if !time.Now().Before(deadline) {
			return false, nil
		}
	}
}
