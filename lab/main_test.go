package lab

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// The test binary is the ssi of the nodes as well.
func TestMain(m *testing.M) {
	if status, ok := RunRole(os.Args); ok {
		os.Exit(status)
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		if err := fakeSSI(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeSSI keeps the contract of a node's ssi, without a cluster: every node that
// can be reached by a connection counts as UP.
func fakeSSI(args []string) error {
	switch {
	case args[0] == "--install":
		if err := os.MkdirAll(args[1], 0o755); err != nil {
			return err
		}
		return os.Symlink("/sbin/ssi", args[1]+"/fake-applet")
	case args[0] == "cluster":
		tokens := ""
		for i := range 200 {
			tokens += fmt.Sprintf("token%d\n", i+2)
		}
		fmt.Println("cluster made:", strings.Join(args[1:], " "))
		return os.WriteFile(args[len(args)-1], []byte(tokens), 0o600)
	case args[0] == "init":
		return fakeInit()
	case args[0] == "fake-applet":
		fmt.Println("applet")
		return nil
	}
	return fmt.Errorf("fake ssi does not know %q", args)
}

func fakeInit() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("fake init has PID %d", os.Getpid())
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	self, err := id.ParseNode(strings.TrimPrefix(host, "node"))
	if err != nil {
		return err
	}
	token, err := os.ReadFile(joinPath)
	if self != 1 && err != nil {
		return err
	}
	fmt.Printf("fake init of %s with token %q\n", host, strings.Fields(string(token)))
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath, Net: "unix"})
	if err != nil {
		return err
	}
	tl, err := net.Listen("tcp", Addr(self)+":"+icsPort)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := tl.Accept()
			if err != nil {
				return
			}
			go echo(c)
		}
	}()
	srv := api.NewServer(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	srv.Handle(api.MethodClusterStatus, func(ctx context.Context, c *api.Call) error {
		st := api.ClusterStatus{Self: self}
		raw, err := os.ReadFile("/etc/hosts")
		if err != nil {
			return err
		}
		for n := id.Node(1); strings.Contains(string(raw), Host(n)+"\n"); n++ {
			state := api.Down
			d := net.Dialer{Timeout: 300 * time.Millisecond}
			if c, err := d.DialContext(ctx, "tcp", Host(n)+":"+icsPort); err == nil {
				state = api.Up
				_ = c.Close()
			}
			st.Nodes = append(st.Nodes, api.NodeInfo{Node: n, State: state})
		}
		return c.Reply(st)
	})
	srv.Handle(api.MethodClusterToken, func(_ context.Context, c *api.Call) error {
		if !c.Peer.Root() {
			return errno.New(errno.Permission, "token", self, "root only")
		}
		return c.Reply(api.TokenReply{Token: "added"})
	})
	go func() { _ = srv.Serve(ul) }()
	sig := make(chan os.Signal, 16)
	signal.Notify(sig, unix.SIGTERM, unix.SIGUSR1, unix.SIGCHLD)
	for s := range sig {
		switch s {
		case unix.SIGTERM:
			return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		case unix.SIGUSR1:
			return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		case unix.SIGCHLD:
			for {
				if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
	return nil
}

// echo returns every byte.
func echo(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}
