package httpboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

const (
	// Port is the TCP port: machines know no other before they have a script.
	Port = 80

	// MaxHeader is how many bytes the header of a request has; net/http adds
	// 4096 for its buffer.
	MaxHeader = 8 << 10
	// MaxPath is how many bytes the path of a request has.
	MaxPath = 1 << 10
	// MaxBody is how many bytes the body of a request has.
	MaxBody = 64 << 10
	// MaxRanges is how many ranges one request has.
	MaxRanges = 16
)

// Files is what may be asked for: the boot tree. An *os.File is sent without
// copying. Sys of the information is the SHA-256 of the content as [32]byte. A
// name that is not there is fs.ErrNotExist; any other error means that it cannot
// be had now.
type Files interface {
	Open(name string) (io.ReadSeekCloser, fs.FileInfo, error)
}

// Request is a request for what is not in Files.
type Request struct {
	Client netip.AddrPort
	Method string // GET, HEAD or POST
	Path   string // without the first slash, as the client sent it: not cleaned
	Query  url.Values
	Body   []byte // of a POST, at most MaxBody
}

// Response answers a Request.
type Response struct {
	Status int    // 0 means 200
	Type   string // "" means text/plain; charset=utf-8
	Body   []byte
}

// Access is the report of one request, for the display of who boots how far.
type Access struct {
	Client netip.AddrPort
	// MAC is what the client says in ?mac=, or nil. It is not proof of anything.
	MAC      net.HardwareAddr
	Method   string // of the client's choice, like Path: print with %q
	Path     string // at most MaxPath bytes
	Status   int
	Bytes    int64 // of the body that were sent
	Size     int64 // that were to be sent; Bytes < Size means that the client went away or was too slow
	Duration time.Duration
	// Err is why a file could not be served (status 503), or nil.
	Err error
}

// Limits bound the server; a zero field means the default.
type Limits struct {
	Connections int           // at once; 256
	PerClient   int           // at once of one address; 16
	Header      time.Duration // until the request is there, with its body; 10 s
	Idle        time.Duration // between two requests of a connection; 30 s
	Chunk       time.Duration // to take 256 KiB; 15 s, which is 17 KB/s
}

func (l Limits) withDefaults() Limits {
	if l.Connections <= 0 {
		l.Connections = 256
	}
	if l.PerClient <= 0 {
		l.PerClient = 16
	}
	for d, value := range map[*time.Duration]time.Duration{&l.Header: 10 * time.Second, &l.Idle: 30 * time.Second, &l.Chunk: 15 * time.Second} {
		if *d <= 0 {
			*d = value
		}
	}
	return l
}

// Config is what a Server needs.
type Config struct {
	Files Files
	// Dynamic, if set, answers what is not in Files; false is 404. It is called by
	// the goroutine of the connection and must end soon after ctx does.
	Dynamic func(ctx context.Context, r Request) (Response, bool)
	// Log, if set, gets a report of each request. It is called by several
	// goroutines and must not block.
	Log func(Access)
	// Refused, if set, is told of connections beyond the limits. It must not block.
	Refused func(client netip.Addr)
	// Trouble gets what net/http says of connections at debug level; it may be nil.
	Trouble *slog.Logger
	Limits  Limits
}

// Server serves until Close.
type Server struct {
	cfg  Config
	http *http.Server
	addr netip.AddrPort

	done chan struct{} // closed when the accepting goroutine has ended
	err  error         // why; after done

	handlers sync.WaitGroup
	mu       sync.Mutex // guards closing: no handler begins after it is set
	closing  bool
}

// Listen opens the socket of a Server.
func Listen(address netip.AddrPort) (net.Listener, error) {
	l, err := net.Listen("tcp", address.String())
	if err != nil {
		return nil, fmt.Errorf("httpboot: listen on %s: %w", address, err)
	}
	return l, nil
}

// New starts a server on a TCP listener, which it takes.
func New(l net.Listener, cfg Config) *Server {
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Refused == nil {
		cfg.Refused = func(netip.Addr) {}
	}
	if cfg.Trouble == nil {
		cfg.Trouble = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, addr: address(l.Addr().String()), done: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler:           s,
		Protocols:         protocols,
		ReadHeaderTimeout: cfg.Limits.Header,
		ReadTimeout:       cfg.Limits.Header,
		WriteTimeout:      cfg.Limits.Header + cfg.Limits.Chunk, // extended with each piece of a file
		IdleTimeout:       cfg.Limits.Idle,
		MaxHeaderBytes:    MaxHeader,
		ErrorLog:          log.New(debugWriter{cfg.Trouble}, "", 0),
		// OPTIONS * is no request for a file.
		DisableGeneralOptionsHandler: true,
	}
	go func() {
		defer close(s.done)
		s.err = s.http.Serve(newListener(l, cfg.Limits.Connections, cfg.Limits.PerClient, cfg.Refused))
	}()
	return s
}

// debugWriter hands the lines of a log.Logger to a slog.Logger.
type debugWriter struct{ log *slog.Logger }

func (w debugWriter) Write(line []byte) (int, error) {
	w.log.Debug("netboot http", "message", string(line))
	return len(line), nil
}

// Addr is where connections are accepted.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Close ends all connections and waits until no request is served any more.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	err := s.http.Close()
	<-s.done
	s.handlers.Wait()
	if err == nil && !errors.Is(s.err, http.ErrServerClosed) {
		err = s.err
	}
	if err != nil {
		return fmt.Errorf("httpboot: %w", err)
	}
	return nil
}

// enter counts a handler, unless the server is closing.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.handlers.Add(1)
	}
	return !s.closing
}
