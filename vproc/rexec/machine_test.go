package rexec_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pid1 "ssi/init"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
	"ssi/internal/keeper"
	"ssi/internal/proc"
	"ssi/vproc/rexec"
	"ssi/vproc/spawn"
)

// The test binary is every role of a machine, too: PID 1 in a PID namespace of
// its own, node, spawn, session, and the command onnode. Two machines talk over
// unix sockets in a directory instead of ICS.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		switch os.Args[1] {
		case "machine":
			os.Exit(machineMain(log))
		case "node":
			os.Exit(nodeMain(log))
		case "spawn":
			os.Exit(spawn.Run(log, nil))
		case "session":
			os.Exit(spawn.RunSession(os.Args[2:]))
		case "onnode":
			onnodeMain()
		}
	}
	status := m.Run()
	_ = os.Remove(selfPath())
	os.Exit(status)
}

func selfPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("ssi-rexec-test-%d", os.Getpid()))
}

func onnodeMain() {
	n, err := id.ParseNode(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "onnode:", err)
		os.Exit(255)
	}
	st, err := rexec.Run(context.Background(), rexec.Options{
		Node: n, Argv: os.Args[3:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "onnode:", err)
	}
	st.Exit()
}

func machineMain(log *slog.Logger) int {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		log.Error("private mounts", "err", err)
		return 1
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		log.Error("proc", "err", err)
		return 1
	}
	return pid1.Run(pid1.Options{RunDir: os.Getenv("TEST_DIR"), Cgroup: os.Getenv("TEST_CGROUP"), Log: log})
}

// fakePeers opens streams to the sockets of other machines.
type fakePeers struct {
	base string
	self id.Node
}

func (p fakePeers) OpenBulk(ctx context.Context, node id.Node, kind string, header []byte) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", filepath.Join(p.base, "node"+node.String(), "ics.sock"))
	if err != nil {
		return nil, errno.New(errno.Unavailable, "", node, "cannot be reached: %w", err)
	}
	b := binary.BigEndian.AppendUint32([]byte{byte(p.self)}, uint32(len(header)))
	_, err = c.Write(append(b, header...))
	return c, err
}

func nodeMain(log *slog.Logger) int {
	dir := os.Getenv("TEST_DIR")
	self, _ := strconv.Atoi(os.Getenv("TEST_NODE"))
	var server *rexec.Server
	ready := make(chan struct{})
	cgroup := os.Getenv(keeper.CgroupEnv)
	k, err := keeper.Open(log, func(e proc.Exit) { <-ready; server.Exited(e) })
	if err != nil {
		log.Error("node", "err", err)
		return 1
	}
	client := spawn.NewClient(filepath.Join(dir, keeper.SpawnSocket))
	server, err = rexec.NewServer(rexec.Config{
		Node: id.Node(self), Peers: fakePeers{filepath.Dir(dir), id.Node(self)}, Spawn: client, RunDir: dir,
		Cgroup: cgroup, RestartSpawn: k.RestartSpawn, Log: log,
	})
	if err != nil {
		log.Error("node", "err", err)
		return 1
	}
	close(ready)
	ics, err := k.Listen("ics", "unix", filepath.Join(dir, "ics.sock"))
	if err != nil {
		log.Error("node", "err", err)
		return 1
	}
	go func() {
		for {
			c, err := ics.Accept()
			if err != nil {
				return
			}
			go func() {
				var h [5]byte
				if _, err := io.ReadFull(c, h[:]); err != nil {
					return
				}
				header := make([]byte, binary.BigEndian.Uint32(h[1:]))
				if _, err := io.ReadFull(c, header); err != nil {
					return
				}
				server.HandleBulk(context.Background(), id.Node(h[0]), header, c)
			}()
		}
	}()
	a := api.NewServer(log)
	a.Handle(api.ExecRun, server.HandleAPI)
	a.Handle("test.fence", func(context.Context, *api.Call) error { server.Fence("a test"); return nil })
	a.Handle("test.unfence", func(context.Context, *api.Call) error { server.Unfence(); return nil })
	a.Handle("test.down2", func(context.Context, *api.Call) error { server.PeerDown(2, "a test"); return nil })
	a.Handle("test.halt", func(context.Context, *api.Call) error { return k.Shutdown(keeper.Halt) })
	l, err := k.Listen("api", "unix", filepath.Join(dir, "ssi.sock"))
	if err != nil {
		log.Error("node", "err", err)
		return 1
	}
	_ = os.Chmod(filepath.Join(dir, "ssi.sock"), 0o666)
	if err := a.Serve(l.(*net.UnixListener)); err != nil {
		log.Error("node", "err", err)
	}
	return 1
}

// machine is a PID namespace with PID 1, spawn and node.
type machine struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
	log *bytes.Buffer
}

// self is a copy of the test binary that every user may run.
func self(t testing.TB) string {
	t.Helper()
	path := selfPath()
	if _, err := os.Stat(path); err == nil {
		return path
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("cp", exe, path).Run(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func boot(t testing.TB, base string, node int) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes PID namespaces")
	}
	dir := filepath.Join(base, "node"+strconv.Itoa(node))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	group := fmt.Sprintf("ssi-test-%d-%d", os.Getpid(), node)
	m := &machine{t: t, dir: dir, log: &bytes.Buffer{}}
	m.cmd = exec.Command(self(t), "machine")
	m.cmd.Env = append(os.Environ(), "TEST_DIR="+dir, "TEST_NODE="+strconv.Itoa(node), "TEST_CGROUP="+group)
	m.cmd.Stdout, m.cmd.Stderr = os.Stderr, os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if !testing.Verbose() {
		f, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m.cmd.Stdout, m.cmd.Stderr = f, f
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
		for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
			eventually(t, "cgroup removed", func() bool {
				_ = os.Remove(filepath.Join(root, group, "rexec"))
				err := os.Remove(filepath.Join(root, group))
				return err == nil || os.IsNotExist(err)
			})
		}
		if t.Failed() && !testing.Verbose() {
			b, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("log of node %d:\n%s", node, b)
		}
	})
	m.awaitReady()
	return m
}

func (m *machine) awaitReady() {
	m.t.Helper()
	eventually(m.t, "node answers", func() bool { return m.call("test.unfence") == nil })
}

func (m *machine) socket() string { return filepath.Join(m.dir, "ssi.sock") }

func (m *machine) call(method string) error {
	c, err := net.Dial("unix", m.socket())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(c, `{"method":%q}`+"\x00", method); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err == nil && bytes.Contains(b[:n], []byte(`"error"`)) {
		err = fmt.Errorf("%s", b[:n])
	}
	return err
}

// role returns the PID, in the test's namespace, of the machine's role.
func (m *machine) role(name string) int {
	m.t.Helper()
	pid := 0
	eventually(m.t, "role "+name, func() bool {
		for _, kid := range childrenOf(m.cmd.Process.Pid) {
			args, _ := os.ReadFile("/proc/" + kid + "/cmdline")
			if f := strings.Split(string(args), "\x00"); len(f) > 1 && f[0] == "ssi" && f[1] == name {
				pid, _ = strconv.Atoi(kid)
				return true
			}
		}
		return false
	})
	return pid
}

// childrenOf is the children of all threads of a process: a file of
// /proc/PID/task/TID/children has those of one.
func childrenOf(parent int) (kids []string) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(f) > 1 && string(f[1]) == strconv.Itoa(parent) {
			kids = append(kids, e.Name())
		}
	}
	return kids
}

// onnode is a command run in the machine, as if typed there.
func (m *machine) onnode(node int, argv ...string) *exec.Cmd {
	args := append([]string{"-t", strconv.Itoa(m.cmd.Process.Pid), "-m", "-p", "--", self(m.t), "onnode", strconv.Itoa(node)}, argv...)
	cmd := exec.Command("nsenter", args...)
	cmd.Env = append(os.Environ(), api.SocketEnv+"="+m.socket())
	return cmd
}

// patience bounds every wait.
const patience = 30 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// alive reports whether a process with this command line exists.
func alive(args ...string) bool {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && string(b) == strings.Join(args, "\x00")+"\x00" {
			return true
		}
	}
	return false
}
