package fuse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serverEnv makes the test binary a server of the connection at descriptor 3.
const serverEnv = "SSI_FUSE_TEST_SERVER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(serverEnv); mode != "" {
		os.Exit(serve(mode))
	}
	os.Exit(m.Run())
}

// The test tree: a file, a link, a file that nobody answers for in mode "deaf", a
// file that waits for the caller to be interrupted, and many names.
const (
	nodeHello = iota + 2
	nodeLink
	nodeHang
	nodeWait
	nodeMany
	names = 3000
)

// serve is the server; it says on its standard output what it must not answer.
func serve(mode string) int {
	c, err := New(os.NewFile(3, "fuse"))
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	if strings.HasPrefix(mode, "heir") {
		if err := c.Resend(); err != nil {
			fmt.Println("error", err)
			return 1
		}
	}
	content := "hello\n"
	if mode == "heir2" {
		content = "changed!\n"
	}
	attr := func(n uint64) *Attr {
		switch n {
		case 1, nodeMany:
			return &Attr{Mode: unix.S_IFDIR | 0o555, Nlink: 2}
		case nodeLink:
			return &Attr{Mode: unix.S_IFLNK | 0o777, Nlink: 1, Size: 5}
		case nodeHello, nodeHang, nodeWait:
			return &Attr{Mode: unix.S_IFREG | 0o440, Nlink: 1, Size: uint64(len(content)), Mtime: time.Unix(1000, 1)}
		}
		return &Attr{Mode: unix.S_IFREG | 0o444, Nlink: 1}
	}
	byName := map[string]uint64{"hello": nodeHello, "link": nodeLink, "hang": nodeHang, "wait": nodeWait, "many": nodeMany}
	err = c.Serve(2, func(r *Request) {
		switch r.Op {
		case Lookup:
			n := byName[r.Name]
			if n == 0 {
				r.Error(unix.ENOENT)
				return
			}
			r.Entry(&Entry{Node: n, EntryTTL: time.Hour, AttrTTL: time.Hour, Attr: *attr(n)})
		case Getattr:
			r.Attr(attr(r.Node), time.Hour)
		case Readlink:
			r.Data([]byte("hello"))
		case Opendir:
			r.Opened(77)
		case Releasedir:
			r.Error(0)
		case Statfs:
			r.Statfs()
		case Readdir, ReaddirPlus:
			l := r.Listing()
			for i := int(r.Offset); i < names && r.Node == nodeMany; i++ {
				n := uint64(1000 + i)
				if !l.Add(&Dirent{Name: "file" + strconv.Itoa(i), Node: n, Off: uint64(i + 1), Type: unix.S_IFREG}, &Entry{Node: n, EntryTTL: time.Hour, AttrTTL: time.Hour, Attr: *attr(n)}) {
					break
				}
			}
			l.Send()
		case Read:
			switch {
			case r.Node == nodeHang && mode == "deaf":
				fmt.Println("deaf")
			case r.Node == nodeWait:
				ctx := r.Context(context.Background())
				go func() {
					fmt.Println("waiting")
					<-ctx.Done()
					r.Error(unix.EINTR)
				}()
			default:
				r.Content([]byte(content))
			}
		default:
			r.Error(unix.ENOSYS)
		}
	})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	fmt.Println("gone")
	return 0
}

// child is a server process.
type child struct {
	cmd *exec.Cmd
	out *bufio.Scanner
}

func start(t *testing.T, mode string, conn *os.File) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serverEnv+"="+mode)
	cmd.ExtraFiles = []*os.File{conn}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd, bufio.NewScanner(out)}
	t.Cleanup(c.kill)
	return c
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func (c *child) says(t *testing.T, want string) {
	t.Helper()
	if !c.out.Scan() || c.out.Text() != want {
		t.Fatalf("the server says %q, want %q", c.out.Text(), want)
	}
}

// mounted makes a file system and mounts it at dir in a mount namespace that only the
// thread of this test is in.
func mounted(t *testing.T) (conn *os.File, dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	if _, err := os.Stat("/dev/fuse"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no /dev/fuse: the kernel has no FUSE")
	}
	dir = t.TempDir()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	conn, mount, err := Make("test", "test", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := unix.MoveMount(int(mount.Fd()), "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	_ = mount.Close()
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return conn, dir
}

func TestMount(t *testing.T) {
	conn, dir := mounted(t)
	s := start(t, "plain", conn)
	if b, err := os.ReadFile(dir + "/link"); err != nil || string(b) != "hello\n" {
		t.Errorf("read through the link: %q, %v", b, err)
	}
	if _, err := os.Stat(dir + "/nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name that is not there: %v", err)
	}
	st, err := os.Stat(dir + "/hello")
	if err != nil || st.Mode() != 0o440 || st.Size() != 6 || !st.ModTime().Equal(time.Unix(1000, 1)) {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.WriteFile(dir+"/hello", []byte("x"), 0o600); err == nil {
		t.Error("a file was written")
	}
	list, err := os.ReadDir(dir + "/many")
	if err != nil || len(list) != names {
		t.Errorf("%d names, %v", len(list), err)
	}
	var fsinfo unix.Statfs_t
	if err := unix.Statfs(dir, &fsinfo); err != nil || fsinfo.Namelen != 255 {
		t.Errorf("%+v, %v", fsinfo, err)
	}
	mounts, _ := os.ReadFile("/proc/thread-self/mounts")
	if !strings.Contains(string(mounts), "test "+dir+" fuse.test rw,nosuid,nodev") {
		t.Errorf("not in the list of mounts: %s", mounts)
	}
	// The mount is gone: the server ends by itself.
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	s.says(t, "gone")
	if err := s.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// The kernel decides by the modes that are told.
func TestPermission(t *testing.T) {
	conn, dir := mounted(t)
	start(t, "plain", conn)
	for at := filepath.Dir(dir); at != os.TempDir() && at != "/"; at = filepath.Dir(at) { // t.TempDir is for its user alone
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("cat", dir+"/link")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("a stranger: %s, %v", out, err)
	}
}

// A request that a server read and did not answer is answered by its heir, and the
// caller notices nothing.
func TestTakeover(t *testing.T) {
	conn, dir := mounted(t)
	first := start(t, "deaf", conn)
	reader := exec.Command("cat", dir+"/hello", dir+"/hang") // in the namespace of this thread
	out, err := reader.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	first.says(t, "deaf")
	first.kill()
	heir := start(t, "heir", conn)
	var lines []string
	for s := bufio.NewScanner(out); s.Scan(); {
		lines = append(lines, s.Text())
	}
	if err := reader.Wait(); err != nil || !slices.Equal(lines, []string{"hello", "hello"}) {
		t.Errorf("read %q, %v", lines, err)
	}
	heir.kill()
	// Requests that come while nobody serves wait.
	reader = exec.Command("ls", dir+"/many")
	out, err = reader.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	start(t, "heir", conn)
	n := 0
	for s := bufio.NewScanner(out); s.Scan(); {
		n++
	}
	if err := reader.Wait(); err != nil || n != names {
		t.Errorf("%d names, %v", n, err)
	}
}

// A signal ends the wait of a handler.
func TestInterrupt(t *testing.T) {
	conn, dir := mounted(t)
	s := start(t, "plain", conn)
	reader := exec.Command("cat", dir+"/wait")
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	s.says(t, "waiting")
	_ = reader.Process.Signal(unix.SIGTERM)
	err := reader.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
		t.Errorf("the reader ended with %v", err)
	}
}

// What the kernel has cached is asked for again when it is told so.
func TestInvalidate(t *testing.T) {
	conn, dir := mounted(t)
	first := start(t, "plain", conn)
	read := func(want string) {
		t.Helper()
		f, err := os.Open(dir + "/hello") // os.ReadFile would ask for the time of access, which the last read changed
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 64)
		if n, err := f.Read(b); err != nil || string(b[:n]) != want {
			t.Fatalf("read %q, %v, want %q", b[:n], err, want)
		}
	}
	read("hello\n")
	first.kill()
	start(t, "heir2", conn)
	read("hello\n") // cached for an hour
	c := &Conn{f: conn, fd: int(conn.Fd()), waiting: map[uint64]context.CancelFunc{}}
	for _, n := range []uint64{nodeHello, 12345} { // and one that the kernel does not know
		if err := c.Invalidate(n, true); err != nil {
			t.Fatal(err)
		}
	}
	read("changed!\n")
	for _, name := range []string{"hello", "unknown"} {
		if err := c.InvalidateEntry(1, name); err != nil {
			t.Fatal(err)
		}
	}
	read("changed!\n")
}
