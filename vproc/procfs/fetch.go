package procfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/fuse"
	"ssi/internal/sys"
)

const (
	// maxFile is how long a file may be that is fetched.
	maxFile = 4 << 20
	// maxFetches is how many are read at once: reading a file of a process may
	// block for as long as the process blocks it.
	maxFetches = 64
	// maxAlso is of how many more processes one question is, maxAlsoBytes what the answers to those may have
	// in all, and alsoWait how long they are waited for.
	maxAlso      = 256
	maxAlsoBytes = 1 << 20
	alsoWait     = 50 * time.Millisecond
	// maxNames is how many names a listing has: descriptors or threads.
	maxNames = 1 << 17
)

// Fetcher reads and writes files of the processes of this node for other nodes.
type Fetcher struct {
	dir   *os.File // the plain proc(5) of the node
	slots chan struct{}
}

// NewFetcher reads from the proc(5) at root. The caller closes the fetcher.
func NewFetcher(root string) (*Fetcher, error) {
	d, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("open the process list: %w", err)
	}
	return &Fetcher{dir: d, slots: make(chan struct{}, maxFetches)}, nil
}

// closeTime is how long Close waits for reads that cannot be interrupted.
const closeTime = time.Second

// Close closes the directory; no call may be running. Reads that a call did not wait
// for may be, and one that hangs keeps the directory open.
func (f *Fetcher) Close() error {
	limit := time.NewTimer(closeTime)
	defer limit.Stop()
	for range cap(f.slots) {
		select {
		case f.slots <- struct{}{}:
		case <-limit.C:
			return errno.New(errno.Timeout, "read /proc", 0, "a read hangs")
		}
	}
	return f.dir.Close()
}

// Fetch implements the service: what the kernel says is in the reply; the error is
// of requests that never reach it.
func (f *Fetcher) Fetch(ctx context.Context, req *FetchRequest) (*FetchReply, error) {
	c := req.GetCaller()
	if c == nil || len(c.GetGroups()) > 1<<16 { // NGROUPS_MAX
		return nil, errno.New(errno.Invalid, "read /proc", 0, "the request names no caller, or one in too many groups")
	}
	path, ok := pathOf(req)
	if !ok {
		return nil, errno.New(errno.Invalid, "read /proc", 0, "%q is not told to other nodes", req.GetPath())
	}
	select {
	case f.slots <- struct{}{}:
	default:
		return nil, errno.New(errno.Full, "read /proc", 0, "%d files are being read already; one of the processes may be blocking that", maxFetches)
	}
	also, ok := alsoOf(req)
	if !ok {
		return nil, errno.New(errno.Invalid, "read /proc", 0, "%d processes at once", len(req.GetAlso()))
	}
	read := make(chan *FetchReply, 1+len(also)) // so that it waits for nobody
	go func() {                                 // reading cannot be interrupted; the slot is held as long as it lasts
		defer func() { <-f.slots }()
		defer close(read)
		who := sys.Credentials{UID: c.GetUid(), GID: c.GetGid(), Groups: c.GetGroups()}
		if err := sys.As(who, func() error { f.all(ctx, req, path, also, read); return nil }); err != nil { // who it is was not taken on
			read <- &FetchReply{Errno: uint32(errnoOf(err))}
		}
	}()
	var rep *FetchReply
	select {
	case rep = <-read:
	case <-ctx.Done():
		return nil, errno.New(errno.Timeout, "read /proc", 0, "%s: %w", path, ctx.Err())
	}
	enough := time.NewTimer(alsoWait)
	defer enough.Stop()
	for {
		select {
		case more, ok := <-read:
			if ok {
				rep.Also = append(rep.Also, more)
				continue
			}
		case <-enough.C:
		case <-ctx.Done():
		}
		return rep, nil
	}
}

// all does what req asks, and then the same for those that it asks for, too, as long as there is room and time.
func (f *Fetcher) all(ctx context.Context, req *FetchRequest, path string, also []string, read chan<- *FetchReply) {
	one := func(path string) *FetchReply {
		rep := &FetchReply{}
		if err := f.do(req, path, rep); err != nil {
			rep.Errno = uint32(errnoOf(err))
		}
		return rep
	}
	read <- one(path)
	size := 0
	for _, path := range also {
		rep := one(path)
		if size += len(rep.GetData()); size > maxAlsoBytes || ctx.Err() != nil {
			return
		}
		read <- rep
	}
}

// alsoOf is the files that are asked for, too.
func alsoOf(req *FetchRequest) (paths []string, ok bool) {
	if len(req.GetAlso()) > maxAlso || len(req.GetAlso()) > 0 && req.GetWhat() != What_READ {
		return nil, false
	}
	for _, pid := range req.GetAlso() {
		path, ok := pathOf(&FetchRequest{Pid: pid, Path: req.GetPath()})
		if !ok || pid == 0 {
			return nil, false
		}
		paths = append(paths, path)
	}
	return paths, true
}

func errnoOf(err error) unix.Errno {
	var e syscall.Errno
	if errors.As(err, &e) && e != 0 {
		return e
	}
	return unix.EIO
}

// pathOf is the file below proc(5), if it is one of those that are told: nothing
// that could block, that has side effects, or that leads out of it.
func pathOf(req *FetchRequest) (string, bool) {
	path := req.GetPath()
	if req.GetPid() == 0 {
		return path, req.GetWhat() == What_READ && slices.Contains(nodeFiles[:], path) || req.GetWhat() == What_LIST && path == "."
	}
	write := req.GetWhat() == What_WRITE
	if req.GetPid() < 0 || req.GetPid() >= 1<<pidBits || write == (len(req.GetData()) == 0) || len(req.GetData()) > fuse.MaxWrite {
		return "", false
	}
	top, rest, deep := strings.Cut(path, "/")
	i := slices.IndexFunc(files[:], func(f procFile) bool { return f.name == top })
	if i <= 0 {
		return "", false
	}
	ok := false
	switch f := files[i]; {
	case write:
		ok = !deep && f.writable()
	case f.source == pushed || f.source == fetched:
		ok = !deep && req.GetWhat() == What_READ
	case f.source == link:
		ok = !deep && req.GetWhat() == What_LINK
	case f.source == names:
		ok = deep && req.GetWhat() == What_LINK && slices.Contains(namespaces[:], rest)
	case !deep:
		ok = f.source == numbers && req.GetWhat() == What_LIST
	case i == fileTask:
		tid, name, _ := strings.Cut(rest, "/")
		_, number := pidOf(tid)
		ok = number && req.GetWhat() == What_READ && name != "" && slices.ContainsFunc(taskFiles[:], func(f procFile) bool { return f.name == name })
	case i == fileFD || i == fileFDInfo:
		_, err := strconv.ParseUint(rest, 10, numberBits)
		want := What_LINK
		if i == fileFDInfo {
			want = What_READ
		}
		ok = err == nil && req.GetWhat() == want
	}
	return strconv.Itoa(int(req.GetPid())) + "/" + path, ok
}

// do runs on a thread with the credentials of the caller.
func (f *Fetcher) do(req *FetchRequest, path string, rep *FetchReply) error {
	switch req.GetWhat() {
	case What_WRITE:
		d, err := f.open(path, unix.O_WRONLY)
		if err != nil {
			return err
		}
		defer func() { _ = d.Close() }()
		n, err := unix.Write(int(d.Fd()), req.GetData()) // once: what a second one means, the file decides
		rep.Written = uint32(max(n, 0))
		return err
	case What_LINK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(f.dir.Fd()), path, buf)
		if err != nil {
			return err
		}
		rep.Data = buf[:n]
		return nil
	case What_LIST:
		d, err := f.open(path, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer func() { _ = d.Close() }()
		if rep.Names, err = d.Readdirnames(maxNames); errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	default:
		d, err := f.open(path, unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		defer func() { _ = d.Close() }()
		rep.Data, err = io.ReadAll(io.LimitReader(d, maxFile+1))
		if err == nil && len(rep.Data) > maxFile {
			rep.Data, err = nil, unix.EFBIG
		}
		return err
	}
}

func (f *Fetcher) open(path string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(f.dir.Fd()), path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NOCTTY|flags, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// nodeFiles is what /cluster/nodeN/proc has besides processes. Append only.
var nodeFiles = [...]string{
	"buddyinfo", "cgroups", "cmdline", "cpuinfo", "crypto", "devices", "diskstats", "filesystems", "interrupts", "iomem",
	"ioports", "loadavg", "locks", "meminfo", "misc", "modules", "partitions", "schedstat", "softirqs", "stat", "swaps", "timer_list", "uptime", "version", "vmstat", "zoneinfo",
}
