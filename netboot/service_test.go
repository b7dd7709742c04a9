package netboot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/pin/tftp/v3"

	"ssi/cluster/registry"
	"ssi/internal/api"
	"ssi/internal/config"
	"ssi/internal/id"
	"ssi/internal/vm"
	"ssi/netboot/machine"
)

// patience bounds every wait.
const patience = time.Minute

// oneNode is a cluster of one node.
type oneNode struct{}

func (oneNode) Self() id.Node           { return 1 }
func (oneNode) State(id.Node) api.State { return api.NeverUp }
func (oneNode) Given(n id.Node) bool    { return n == 1 }
func (oneNode) Credential(context.Context, id.Node, time.Duration) ([]byte, error) {
	return nil, errors.New("not in this test")
}
func (oneNode) Revoke(context.Context, id.Node, string) error { return nil }

// wire is a segment with nodes that boot machines, and a machine.
type wire struct {
	t       *testing.T
	segment *vm.Segment
	machine *vm.Netns // with eth0, 10.9.0.50
	reg     *memory
}

func newWire(t *testing.T) *wire {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: network namespaces cannot be made")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no tap interfaces: %v", err)
	}
	n, err := vm.New(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &wire{t: t, reg: &memory{store: registry.NewStore()}}
	if w.segment, err = n.Segment("ic"); err != nil {
		t.Fatal(err)
	}
	w.machine = w.host("eth0", "10.9.0.50/24")
	return w
}

// host is a network namespace on the segment; names are unique on it.
func (w *wire) host(ifname, addr string) *vm.Netns {
	w.t.Helper()
	ns, err := vm.NewNetns()
	if err != nil {
		w.t.Skipf("no network namespace: %v", err)
	}
	w.t.Cleanup(func() { _ = ns.Close() })
	tap, err := w.segment.Tap(ns, ifname, netip.MustParsePrefix(addr))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = tap.Close() })
	return ns
}

// on does something on the machine.
func (w *wire) on(f func() error) {
	w.t.Helper()
	if err := w.machine.Do(f); err != nil {
		w.t.Fatal(err)
	}
}

// node is a node that boots machines while it serves.
type node struct {
	*Service
	w    *wire
	ns   *vm.Netns
	addr netip.Addr
	said *lockedWriter

	makes atomic.Int32 // calls of Make
}

// node makes one; enable says that it has settings and boot files of its own.
func (w *wire) node(ifname, addr string, enable bool) *node {
	w.t.Helper()
	p := netip.MustParsePrefix(addr)
	n := &node{w: w, ns: w.host(ifname, addr), addr: p.Addr(), said: &lockedWriter{w: new(bytes.Buffer)}}
	n.Service = New(Config{
		Settings: config.Netboot{Enable: enable, Mode: config.ModePool, Unknown: config.UnknownWait, Range: "10.9.0.100-10.9.0.199", HTTPPort: config.HTTPPort},
		Dir:      filepath.Join(w.t.TempDir(), "netboot"), Root: w.t.TempDir(), Capable: true,
		Make:     func(context.Context, string) error { n.makes.Add(1); return nil },
		Address:  func(string) (string, netip.Prefix, error) { return ifname, p, nil },
		Registry: w.reg, Table: machine.NewTable(w.reg, oneNode{}), Log: slog.New(slog.NewTextHandler(n.said, nil)), Alarm: func(string) {},
		Watch: func(string, uint64) (*registry.Watch, error) { return nil, errors.New("not in this test") },
	})
	if enable {
		if err := os.MkdirAll(n.Dir, 0o700); err != nil {
			w.t.Fatal(err)
		}
		for name, b := range map[string][]byte{stampName: []byte(Given), kernelName: bzImage(), initramfsName: archive(16 << 20)} {
			if err := os.WriteFile(filepath.Join(n.Dir, name), b, 0o600); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	w.t.Cleanup(runBuilds(n.Service))
	return n
}

// runBuilds makes what the service asks for until stop.
func runBuilds(s *Service) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Build(ctx) }()
	return func() { cancel(); <-done }
}

// serve has the node serve until stop, as it does while it holds init.
func (n *node) serve() (stop func()) {
	n.w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.ns.Do(func() error { n.Work(ctx); return nil }) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				n.w.t.Error(err)
			}
		}
	}
	n.w.t.Cleanup(stop)
	return stop
}

// until waits for a condition.
func (w *wire) until(what string, is func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for !is() {
		select {
		case <-deadline:
			w.t.Fatalf("never: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// bzImage is what looks like a kernel
// (Documentation/arch/x86/boot.rst).
func bzImage() []byte {
	b := make([]byte, 2*512+16*64)
	b[0x1f1], b[0x1f4] = 1, 64
	b[0x1fe], b[0x1ff] = 0x55, 0xaa
	copy(b[0x202:], "HdrS")
	b[0x206], b[0x207] = 0x0f, 0x02
	b[0x20f] = 0x01
	copy(b[0x300:], "6.12.0-test (somebody) #1 SMP\x00")
	return b
}

// archive is an initramfs with a file of so many bytes.
func archive(size int) []byte {
	var b bytes.Buffer
	member := func(name string, mode, size int) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name)
		b.Write(make([]byte, 1+(4-(110+len(name)+1)%4)%4))
	}
	member("data", 0o100644, size)
	for i := range size / 4 {
		b.Write([]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i % 251)})
	}
	member("TRAILER!!!", 0, 0)
	return b.Bytes()
}

// lease asks for an address as a new client would.
func (w *wire) lease() (addr string) {
	w.t.Helper()
	w.on(func() error {
		c, err := nclient4.New("eth0", nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(15))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		l, err := c.Request(w.t.Context())
		if err == nil {
			addr = l.ACK.YourIPAddr.String()
		}
		return err
	})
	return addr
}

// dial connects from the machine.
func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return dialFrom(ctx, w.machine, network, addr)
}

func dialFrom(ctx context.Context, ns *vm.Netns, network, addr string) (c net.Conn, err error) {
	err = ns.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: time.Second, FallbackDelay: -1}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// A service that ends in the middle of a transfer, and is started anew, as with the
// daemon: addresses stay, a download goes on where it was, and all servers answer.
func TestServiceAgain(t *testing.T) {
	w := newWire(t)
	n := w.node("s0", "10.9.0.1/24", true)
	stop := n.serve()
	addr := w.lease()
	if !strings.HasPrefix(addr, "10.9.0.1") {
		t.Errorf("leased %s", addr)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: w.dial, DisableKeepAlives: true}, Timeout: patience}
	url := "http://10.9.0.1:8067/" + initramfsName
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	etag := res.Header.Get("ETag")
	whole := archive(16 << 20)
	got, err := io.ReadAll(io.LimitReader(res.Body, int64(len(whole)/8)))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	more, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err == nil {
		t.Error("the transfer does not fail with the service")
	}
	got = append(got, more...)
	if len(got) >= len(whole) {
		t.Fatalf("%d bytes came though the service ended", len(got))
	}
	if _, err := client.Get(url); err == nil {
		t.Error("a service that ended answers")
	}

	n.serve()
	w.until("the download goes on", func() bool {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", len(got)))
		req.Header.Set("If-Range", etag)
		res, err := client.Do(req)
		if err != nil {
			return false
		}
		defer func() { _ = res.Body.Close() }()
		rest, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusPartialContent || len(got)+len(rest) != len(whole) {
			t.Fatalf("the rest: %s, %d bytes after %d, %v", res.Status, len(rest), len(got), err)
		}
		got = append(got, rest...)
		return true
	})
	if sha256.Sum256(got) != sha256.Sum256(whole) {
		t.Error("what was resumed is not the file")
	}
	if again := w.lease(); again != addr {
		t.Errorf("leased %s, before %s", again, addr)
	}
	if got := n.makes.Load(); got != 1 {
		t.Errorf("the boot files were made %d times", got)
	}
	w.on(func() error { // transfers would have sockets of another namespace
		c, err := tftp.NewClient("10.9.0.1:69")
		if err != nil {
			return err
		}
		if _, err := c.Receive("nosuch", "octet"); err == nil || !strings.Contains(err.Error(), "code: 1,") {
			t.Errorf("by TFTP: %v", err)
		}
		return nil
	})
}

// A boot file that is replaced while the service runs is looked at and served.
func TestReplacedFile(t *testing.T) {
	w := newWire(t)
	n := w.node("s0", "10.9.0.1/24", true)
	n.serve()
	client := &http.Client{Transport: &http.Transport{DialContext: w.dial, DisableKeepAlives: true}, Timeout: patience}
	size := func() int64 {
		res, err := client.Get("http://10.9.0.1:8067/" + initramfsName)
		if err != nil {
			return -1
		}
		defer func() { _ = res.Body.Close() }()
		got, err := io.Copy(io.Discard, res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			return -1
		}
		return got
	}
	w.until("the initramfs is served", func() bool { return size() > 0 })
	b := archive(1 << 20)
	name := filepath.Join(n.Dir, initramfsName)
	if err := errors.Join(os.WriteFile(name+".new", b, 0o600), os.Rename(name+".new", name)); err != nil {
		t.Fatal(err)
	}
	w.until("the new one is", func() bool { return size() == int64(len(b)) })
}

// The next init serves what it fetched from the last one, with its leases, and does
// not look into the files again: they are those that the cluster checked.
func TestTakeOver(t *testing.T) {
	w := newWire(t)
	first, next := w.node("s0", "10.9.0.1/24", true), w.node("s1", "10.9.0.2/24", false)
	stop := first.serve()
	addr := w.lease()
	shared, _, err := readShared(w.reg.Stale())
	if err != nil || shared == nil {
		t.Fatalf("nothing is shared: %v", err)
	}
	next.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialFrom(ctx, next.ns, network, addr)
	}
	if err := next.fetchAll(t.Context(), shared); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := next.stock.entry(initramfsName, func(io.ReaderAt, int64) error { return errors.New("it is looked into again") }); err != nil {
		t.Error(err)
	}
	next.serve()
	if again := w.lease(); again != addr {
		t.Errorf("leased %s, before %s", again, addr)
	}
	w.until("the next one has told the others", func() bool {
		now, _, err := readShared(w.reg.Stale())
		return err == nil && now.Server == "10.9.0.2:8067" && now.Settings.Enable
	})
}

// Damaged boot files are named, never offered, and taken when they are right again.
func TestDamagedFiles(t *testing.T) {
	w := newWire(t)
	n := w.node("s0", "10.9.0.1/24", true)
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(n.Dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole := archive(1 << 20)
	for name, b := range map[string][]byte{kernelName: bzImage()[:1500], initramfsName: whole[:len(whole)/2]} {
		good, err := os.ReadFile(filepath.Join(n.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		write(name, b)
		stop := n.serve()
		w.until("it says what is wrong with "+name, func() bool {
			return strings.Contains(n.said.text(), filepath.Join(n.Dir, name)+" cannot be offered for booting: ")
		})
		if _, err := w.dial(t.Context(), "tcp4", "10.9.0.1:8067"); err == nil {
			t.Error("it serves all the same")
		}
		stop()
		write(name, good)
	}
	n.serve()
	w.until("it serves", func() bool {
		c, err := w.dial(t.Context(), "tcp4", "10.9.0.1:8067")
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// A mirror leaves nothing behind of what is not the right file, and says what came.
func TestMirrorOfGarbage(t *testing.T) {
	for name, reply := range map[string]func(http.ResponseWriter){
		"SHA-256":         func(w http.ResponseWriter) { _, _ = w.Write(bytes.Repeat([]byte("x"), 100)) },
		"unexpected EOF":  func(w http.ResponseWriter) { w.Header().Set("Content-Length", "100"); _, _ = w.Write([]byte("x")) },
		"HTTP status 503": func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reply(w) }))
			defer server.Close()
			dir := t.TempDir()
			s := New(Config{Dir: dir, Registry: &memory{store: registry.NewStore()}, Log: slog.New(slog.DiscardHandler)})
			err := s.fetchAll(t.Context(), &Shared{Server: strings.TrimPrefix(server.URL, "http://"),
				Files: []File{{Name: kernelName, Size: 100, Sum: strings.Repeat("00", sha256.Size)}}})
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), kernelName) {
				t.Errorf("it says %v", err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	s := New(Config{Dir: t.TempDir(), Registry: &memory{store: registry.NewStore()}, Log: slog.New(slog.DiscardHandler)})
	dials := 0
	dial := s.dial
	s.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return dial(ctx, network, addr)
	}
	var files []File
	for _, name := range append(loaderNames(), kernelName, initramfsName) {
		files = append(files, File{Name: name, Size: 1, Sum: strings.Repeat("00", sha256.Size)})
	}
	if err := s.fetchAll(t.Context(), &Shared{Server: strings.TrimPrefix(gone.URL, "http://"), Files: files}); err == nil || dials != 1 {
		t.Errorf("a node that is gone is asked %d times: %v", dials, err)
	}
}
