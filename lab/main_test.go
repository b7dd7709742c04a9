package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
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
	if filepath.Base(os.Args[0]) == "fake-applet" {
		fmt.Println("applet")
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == "lab" {
		os.Exit(labCommand(os.Args[2:]))
	}
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		if err := fakeSSI(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			unix.Exit(1)
		}
		unix.Exit(0) // at once: os.Exit under the race detector takes a second
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
	case args[0] == "cluster" && slices.Contains(args, "refused"):
		return errors.New("some detail\nno such profile\nTry `x --help`.")
	case args[0] == "cluster" && !slices.Contains(args, "--tokens-out"):
		return nil
	case args[0] == "cluster":
		tokens := ""
		for i := range 200 {
			tokens += fmt.Sprintf("token%d\n", i+2)
		}
		fmt.Println("cluster made:", strings.Join(args[1:], " "))
		return os.WriteFile(args[len(args)-1], []byte(tokens), 0o600)
	case args[0] == "init":
		return fakeInit()
	case args[0] == "probe": // probe NODE TIMEOUT: one round trip
		timeout, err := time.ParseDuration(args[2])
		if err != nil {
			return err
		}
		return probe(args[1], timeout)
	case args[0] == "hear": // hear FROM TIMEOUT: wait for a broadcast
		return hear(args[1], args[2])
	case args[0] == "shout": // one broadcast
		c, err := net.Dial("udp", subnet+"255:9")
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("x"))
		return err
	case args[0] == "stream": // stream NODE N: so many round trips of 64 KiB, checked; prints the longest
		return stream(args[1], args[2])
	case args[0] == "hold": // hold NODE: say how a connection ends
		return hold(args[1])
	}
	return fmt.Errorf("fake ssi does not know %q", args)
}

func fakeInit() error {
	config, err := os.ReadFile(configDir + "/ssi.toml")
	if err != nil {
		return err
	}
	switch {
	case bytes.Contains(config, []byte("deadly")):
		return errors.New("deadly profile")
	case bytes.Contains(config, []byte("sleepy")):
		for { // not select{}: the runtime ends a program in which nothing can happen any more
			_ = unix.Pause()
		}
	}
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
			if c, err := d.DialContext(ctx, "tcp", Addr(n)+":"+icsPort); err == nil {
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

// labCommand is `ssi lab …`.
func labCommand(args []string) int {
	type exit struct{ error }
	status := 0
	cmd := Command(Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Usage: func(text string) error { status = 2; return errors.New(text) },
		Exit:  func(n int) error { status = n; return exit{errors.New("")} },
	})
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.Execute()
	if _, ok := err.(exit); err != nil && !ok {
		fmt.Fprintln(os.Stderr, "ssi lab:", err)
		return max(status, 1)
	}
	return status
}

func probe(node string, timeout time.Duration) error {
	start := time.Now()
	c, err := net.DialTimeout("tcp", "node"+node+":"+icsPort, timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(start.Add(timeout)); err != nil {
		return err
	}
	connected := time.Now()
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return err
	}
	fmt.Println(time.Since(connected).Milliseconds())
	return nil
}

func hear(from, timeout string) error {
	d, err := time.ParseDuration(timeout)
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 9})
	if err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	for {
		_, addr, err := c.ReadFromUDP(make([]byte, 10))
		if err != nil || addr.IP.String() == from {
			return err
		}
	}
}

func stream(node, times string) error {
	c, err := net.Dial("tcp", subnet+node+":"+icsPort)
	if err != nil {
		return err
	}
	defer c.Close()
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	sent, got := make([]byte, 1<<16), make([]byte, 1<<16)
	var longest time.Duration
	for i := range n {
		start := time.Now()
		for j := range sent {
			sent[j] = byte(i + j*j>>3)
		}
		if err := c.SetDeadline(start.Add(30 * time.Second)); err != nil {
			return err
		}
		wrote := make(chan error, 1)
		go func() { _, err := c.Write(sent); wrote <- err }()
		_, err := io.ReadFull(c, got)
		if err := errors.Join(err, <-wrote); err != nil {
			return err
		}
		if !bytes.Equal(sent, got) {
			return fmt.Errorf("round %d came back changed", i)
		}
		longest = max(longest, time.Since(start))
	}
	fmt.Println("longest round", longest)
	return nil
}

func hold(node string) error {
	c, err := net.Dial("tcp", "node"+node+":"+icsPort)
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	buf := make([]byte, 1)
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = c.Read(buf)
	fmt.Println("ended", err)
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
