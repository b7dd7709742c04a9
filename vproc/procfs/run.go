package procfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/fuse"
	"ssi/internal/keeper"
	"ssi/internal/proc"
)

// What PID 1 keeps of the view, by name.
const (
	// keptConn is the server's end of the file system.
	keptConn = "procfs.fuse"
	// keptMount is the file system, served and not mounted anywhere yet: Setup takes it.
	keptMount = "procfs.mount"
	// keptBound is the names of the directories of the node that are bind mounts, one a line.
	keptBound = "procfs.bound"
	// keptView is the mount namespace of the users' processes.
	keptView = "procfs.view"
)

const (
	// realProc is the plain proc(5) in the namespace of the roles.
	realProc = "/proc"
	// newsWait and firstWait are how long a server that takes over waits for the role
	// node and for what the other nodes tell, before it answers.
	newsWait  = 2 * time.Second
	firstWait = time.Second
	// maxBound is how long the list of keptBound may be.
	maxBound = 64 << 10
)

// Run is the role mount: it serves the file system that PID 1 keeps, or makes it,
// until SIGTERM. It does not end what waits: that is served by its next life, so PID 1 must start that or
// drop what it keeps. It returns the exit status.
func Run(log *slog.Logger) int {
	keep, err := keeper.Open(log, func(proc.Exit) {})
	if err != nil {
		log.Error("mount role", "op", "keeper", "err", err)
		return 1
	}
	// A reader that waits in read(2) keeps its processor of the Go runtime, unless all of them are in use: then the
	// runtime takes it away after 20 µs, again and again, and each request costs nearly twice the time.
	runtime.GOMAXPROCS(runtime.NumCPU() + readers)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	if err := lockMemory(); err != nil {
		log.Debug("the mount role may be swapped out", "op", "mlockall", "err", err)
	}
	m := &mounter{log: log, keep: keep}
	errs := make(chan error, 1)
	go func() { // ends with the process: a read of /dev/fuse cannot be interrupted
		for {
			if err := m.life(); err != nil {
				errs <- err
				return
			}
			log.Warn("the view is gone; making the file system anew", "op", "procfs")
		}
	}()
	select {
	case err := <-errs:
		log.Error("mount role", "op", "procfs", "err", err)
		return 1
	case <-keep.Done():
		return 1
	case <-stop:
		return 0
	}
}

// lockMemory keeps in memory what this process has touched, if it has the right
// to lock as much as it likes: others would fail later, one page at a time.
func lockMemory() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return err
	}
	if data[0].Effective&(1<<unix.CAP_IPC_LOCK) == 0 {
		return unix.EPERM
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

// mounter serves file systems, one after the other.
type mounter struct {
	log  *slog.Logger
	keep *keeper.Client
}

// life serves one file system until it is gone.
func (m *mounter) life() error {
	real, err := os.Open(realProc)
	if err != nil {
		return err
	}
	defer func() { _ = real.Close() }()
	boot, err := bootTime(real)
	if err != nil {
		return err
	}
	conn, bound, err := m.take()
	takeover := err == nil
	var mount *os.File
	if errors.Is(err, fs.ErrNotExist) {
		conn, mount, bound, err = m.make()
	}
	if err != nil {
		return err
	}
	s, err := newServer(m.log, conn, real, boot, bound, dialNode)
	if err != nil {
		return err
	}
	if mount != nil {
		defer func() { _ = mount.Close() }()
	}
	return s.run(takeover, func() error {
		if mount == nil {
			return nil
		}
		// Only now, when it is served. A Setup that waits takes it from PID 1.
		err := m.keep.Put(keptMount, mount)
		_ = mount.Close()
		return err
	}, func() error {
		return errors.Join(m.keep.Drop(keptMount), m.keep.Drop(keptConn), m.keep.Drop(keptBound))
	})
}

// take takes over what an earlier life made.
func (m *mounter) take() (conn *os.File, bound []string, err error) {
	conn, err = m.keep.Take(keptConn)
	if err != nil {
		return nil, nil, err
	}
	list, err := m.keep.Take(keptBound)
	if err != nil { // without it, bind mounts would be taken for links, and be gone: make nothing anew
		_ = conn.Close()
		return nil, nil, fmt.Errorf("the names of the bind mounts: %v", err) //nolint:errorlint // not the "not kept" of the caller
	}
	defer func() { _ = list.Close() }()
	text, err := io.ReadAll(io.NewSectionReader(list, 0, maxBound)) // the offset is shared with PID 1
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, splitLines(text), nil
}

func splitLines(text []byte) []string {
	var all []string
	for _, f := range bytes.Fields(text) {
		all = append(all, string(f))
	}
	return all
}

// make makes a new file system.
func (m *mounter) make() (conn, mount *os.File, bound []string, err error) {
	list, err := os.ReadDir(realProc)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, e := range list {
		if _, pid := pidOf(e.Name()); e.IsDir() && !pid {
			bound = append(bound, e.Name())
		}
	}
	names, err := boundFile(bound)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { _ = names.Close() }()
	conn, mount, err = fuse.Make("ssi", "ssi.proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, nil, nil, err
	}
	// keptBound first: a life that finds keptConn needs it.
	if err = m.keep.Put(keptBound, names); err == nil {
		err = m.keep.Put(keptConn, conn)
	}
	if err != nil {
		_, _ = conn.Close(), mount.Close()
		return nil, nil, nil, err
	}
	return conn, mount, bound, nil
}

func boundFile(bound []string) (*os.File, error) {
	fd, err := unix.MemfdCreate("procfs.bound", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "procfs.bound")
	for _, name := range bound {
		if _, err := f.WriteString(name + "\n"); err != nil {
			_ = f.Close()
			return nil, err
		}
	}
	return f, nil
}

// dialNode connects to the role node of this machine.
func dialNode(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, newsWait)
	defer cancel()
	c, err := api.Dial(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := c.Upgrade(ctx, Method, struct{}{}, nil)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return conn, nil
}

// server is one life of the file system.
type server struct {
	conn  *fuse.Conn
	table *Table
	link  *Link
	tree  *tree
	fresh *refresher

	news    context.Context // ends with the first news
	ctx     context.Context // of the parts that tree needs
	stop    context.CancelFunc
	endWait context.CancelFunc // ends the requests that wait
}

// newServer takes f.
func newServer(log *slog.Logger, f, real *os.File, boot int64, bound []string, dial func(context.Context) (net.Conn, error)) (*server, error) {
	conn, err := fuse.New(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	s := &server{conn: conn, table: newTable(boot)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	news, first := context.WithCancel(s.ctx)
	s.news = news
	s.link = NewLink(log, dial, func(c *Cluster) {
		s.tree.tell(s.table.setCluster(c)) // only names go: it does not wait
		first()
	})
	requests, cancel := context.WithCancel(s.ctx)
	s.endWait = cancel
	s.tree = newTree(requests, conn, s.table, s.link, real, bound)
	s.fresh = newRefresher(s.ctx, s.table, s.link, s.tree.tell)
	s.tree.fresh = s.fresh
	return s, nil
}

// run serves until the file system is gone. served is called when requests are
// answered, gone at the end.
func (s *server) run(takeover bool, served, gone func() error) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.stop()
	wg.Go(func() { s.link.Run(s.ctx) })
	wg.Go(func() { s.fresh.run() })
	if takeover { // nobody shall see the processes of the others come and go
		s.tree.hold()
		s.catchUp()
		s.fresh.looked() // by those whom the dead server told
		if err := s.conn.Resend(); err != nil {
			return err
		}
	}
	done := make(chan error, 1)
	go func() { done <- s.conn.Serve(readers, s.tree.handle) }()
	wg.Go(func() {
		s.tree.release()
		s.tree.forgetter(s.ctx, takeover)
	})
	if err := served(); err != nil { // PID 1 is gone; the process ends, and what waits is asked again
		return err
	}
	err := <-done
	s.endWait()
	s.tree.wg.Wait() // before stop: it may ask for a poll
	s.stop()
	return errors.Join(err, gone())
}

// catchUp learns of the other nodes.
func (s *server) catchUp() {
	ctx, cancel := context.WithTimeout(s.ctx, newsWait)
	defer cancel()
	select {
	case <-s.news.Done():
	case <-ctx.Done():
		return
	}
	s.fresh.refresh(ctx, firstWait, true, false, s.table.nodes()...)
}

var _ Peers = (*Link)(nil)
