package tftp

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Port is the UDP port of TFTP.
const Port = 69

// Files is what may be asked for: the boot tree. The content must also be an
// io.ReaderAt, and the information have its size. A name that is not there is
// fs.ErrNotExist.
type Files interface {
	Open(name string) (io.ReadSeekCloser, fs.FileInfo, error)
}

// Limits bound the server; a zero field means the default.
type Limits struct {
	Transfers int           // at once in all; 64
	PerClient int           // at once of one address; 4
	Wait      time.Duration // for an acknowledgement before a datagram is sent again; 1 s
	Retries   int           // how often it is sent again; 8
	Total     time.Duration // of one transfer; 15 min
}

func (l Limits) withDefaults() Limits {
	set := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	set(&l.Transfers, 64)
	set(&l.PerClient, 4)
	set(&l.Retries, 8)
	if l.Wait <= 0 {
		l.Wait = time.Second
	}
	if l.Total <= 0 {
		l.Total = 15 * time.Minute
	}
	return l
}

// Transfer is the report of one request.
type Transfer struct {
	Client   netip.AddrPort
	Name     string // as asked for: up to MaxName bytes of anything; print with %q
	Size     int64  // of the file; 0 if there is none
	Bytes    int64  // that the client acknowledged
	Duration time.Duration
	// Probe is set when the client only wanted to know the size: it ended the
	// transfer after the options, which is no error (UEFI does so first).
	Probe bool
	Err   error // why it failed, or nil
}

// Config is what a Server needs.
type Config struct {
	Files Files
	// Dynamic, if set, makes the file for one machine (pxelinux.cfg/01-MAC). It
	// is asked when Files does not have the name; false means that there is none
	// either. It must not block.
	Dynamic func(client netip.Addr, name string) ([]byte, bool)
	// Log, if set, gets a report of each request that was served or refused. It
	// is called by several goroutines and must not block.
	Log    func(Transfer)
	Limits Limits
}

// Server serves files until Close.
type Server struct {
	cfg  Config
	conn *net.UDPConn

	wg sync.WaitGroup

	mu      sync.Mutex
	closing bool
	running int // transfers that have a socket: active ones, and evicted ones about to end
	active  map[netip.AddrPort]*transfer
	clients map[netip.Addr]int
}

// Listen opens the socket of a Server. address is IPv4; with 0.0.0.0 answers
// come from the address that was asked.
func Listen(address netip.AddrPort) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, fmt.Errorf("tftp: listen on %s: %w", address, err)
	}
	return c, nil
}

// New starts a server on a socket, which it takes.
func New(conn *net.UDPConn, cfg Config) (*Server, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	s := &Server{cfg: cfg, conn: conn, active: map[netip.AddrPort]*transfer{}, clients: map[netip.Addr]int{}}
	// Which of our addresses was asked comes with each packet (ip(7), IP_PKTINFO).
	raw, err := conn.SyscallConn()
	if err == nil {
		if cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}); cerr != nil {
			err = cerr
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("tftp: socket %s: %w", conn.LocalAddr(), err)
	}
	s.wg.Add(1)
	go s.receive()
	return s, nil
}

// Addr is where requests are received.
func (s *Server) Addr() netip.AddrPort {
	a, _ := s.conn.LocalAddr().(*net.UDPAddr)
	return a.AddrPort()
}

// Close ends all transfers and waits for them.
func (s *Server) Close() error {
	err := s.conn.Close()
	s.mu.Lock()
	s.closing = true
	for _, t := range s.active {
		t.cancel(errEnded)
	}
	s.mu.Unlock()
	s.wg.Wait()
	if errors.Is(err, net.ErrClosed) { // a second Close
		return nil
	}
	return err
}

// maxFailures is how often in a row receiving may fail before the server gives
// up: a closed socket fails for ever.
const maxFailures = 100

func (s *Server) receive() {
	defer s.wg.Done()
	buf, oob := make([]byte, MaxRequest+1), make([]byte, 256)
	for failures := 0; failures < maxFailures; {
		n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			failures++
			continue
		}
		failures = 0
		s.request(buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), localAddr(oob[:oobn]))
	}
}

// localAddr is the address of this machine in the control messages of a packet,
// or the zero Addr.
func localAddr(oob []byte) netip.Addr {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		// struct in_pktinfo: interface, local address, address in the header
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12 {
			return netip.AddrFrom4([4]byte(m.Data[4:8]))
		}
	}
	return netip.Addr{}
}

// request answers one packet.
func (s *Server) request(b []byte, from netip.AddrPort, local netip.Addr) {
	r, err := parse(b)
	if errors.Is(err, errNoRequest) || from.Port() == 0 {
		return
	}
	if err == nil {
		err = s.start(r, from, local)
	}
	if err == nil {
		return
	}
	no := refusal{codeUndefined, "the server cannot serve this now; ask again"}
	_ = errors.As(err, &no)
	_, _ = s.conn.WriteToUDPAddrPort(encodeError(no.code, no.text), from) // the client asks again if it is lost
	s.report(Transfer{Client: from, Name: r.name, Err: err})
}

func (s *Server) report(t Transfer) {
	if s.cfg.Log != nil {
		s.cfg.Log(t)
	}
}

// start begins a transfer, or returns why not.
func (s *Server) start(r request, from netip.AddrPort, local netip.Addr) error {
	t, err := s.admit(from)
	if err != nil || t == nil {
		return err
	}
	err = t.open(s, r, local)
	if err != nil {
		s.remove(t)
		return err
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		report := t.run()
		s.remove(t)
		s.report(report)
	}()
	return nil
}

// admit makes room for a transfer. It is nil when the client has one already
// from this port: its request came twice.
func (s *Server) admit(from netip.AddrPort) (*transfer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing || s.active[from] != nil:
		return nil, nil
	case s.clients[from.Addr()] >= s.cfg.Limits.PerClient:
		return nil, refusal{codeUndefined, "this machine has as many transfers as it may; ask again"}
	case s.running >= 2*s.cfg.Limits.Transfers, len(s.active) >= s.cfg.Limits.Transfers && !s.evict():
		return nil, refusal{codeUndefined, "the server has as many transfers as it may; ask again"}
	}
	t := &transfer{client: from, limits: s.cfg.Limits, fd: -1, begun: time.Now()}
	s.active[from] = t
	s.clients[from.Addr()]++
	s.running++
	return t, nil
}

// evict ends the oldest transfer whose client never answered: so a flood of
// requests with invented addresses does not keep machines from booting. It is
// called with s.mu.
func (s *Server) evict() bool {
	var oldest *transfer
	for _, t := range s.active {
		if !t.heard.Load() && (oldest == nil || t.begun.Before(oldest.begun)) {
			oldest = t
		}
	}
	if oldest == nil {
		return false
	}
	oldest.cancel(errEvicted)
	s.forget(oldest)
	return true
}

// forget takes a transfer out of the counts. It is called with s.mu.
func (s *Server) forget(t *transfer) {
	if s.active[t.client] != t {
		return // evicted before
	}
	delete(s.active, t.client)
	if s.clients[t.client.Addr()]--; s.clients[t.client.Addr()] <= 0 {
		delete(s.clients, t.client.Addr())
	}
}

func (s *Server) remove(t *transfer) {
	t.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.forget(t)
}

// find opens what a request asks for. Some firmware writes a slash before the
// name; all others are compared as they are.
func (s *Server) find(client netip.Addr, name string) (io.ReadSeekCloser, int64, error) {
	name = strings.TrimLeft(name, "/")
	f, info, err := s.cfg.Files.Open(name)
	if err == nil {
		return f, info.Size(), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	if s.cfg.Dynamic != nil {
		if data, ok := s.cfg.Dynamic(client, name); ok {
			return memory{strings.NewReader(string(data))}, int64(len(data)), nil
		}
	}
	return nil, 0, refusal{codeNotFound, "there is no such file"}
}

type memory struct{ *strings.Reader }

func (memory) Close() error { return nil }
