package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The two ends of the cable between the run and its sshd.
const (
	sshClientAddr = "10.86.0.1"
	sshServerAddr = "10.86.0.2"
)

// sshServer is an sshd in a mount and a network namespace of its own, with keys
// of its own.
type sshServer struct {
	cmd    *exec.Cmd
	master *exec.Cmd // a connection kept for others; nil without
}

// sshServer is the sshd of the run, started when it is first needed.
func (s *site) sshServer(ctx context.Context) (*sshServer, error) {
	if s.ssh == nil {
		srv, err := startSSH(ctx, s)
		if err != nil {
			return nil, err
		}
		s.ssh = srv
	}
	return s.ssh, nil
}

// startSSH starts the sshd and waits until it takes a command.
func startSSH(ctx context.Context, s *site) (_ *sshServer, err error) {
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		return nil, errors.New("no sshd: apt-get install openssh-server")
	}
	if err := writeSSHFiles(ctx); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(order{Argv: []string{sshd, "-D", "-e", "-f", filepath.Join(sshDir, "sshd_config")}})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.self, jobArg, jobSSHD, string(raw))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sshd: %w", err)
	}
	srv := &sshServer{cmd: cmd}
	defer func() {
		if err != nil {
			srv.close()
		}
	}()
	pid := strconv.Itoa(cmd.Process.Pid)
	for _, argv := range [][]string{
		{"ip", "link", "add", "bench0", "type", "veth", "peer", "name", "bench1", "netns", pid},
		{"ip", "addr", "add", sshClientAddr + "/30", "dev", "bench0"},
		{"ip", "link", "set", "bench0", "up"},
	} {
		if err := command(ctx, argv...); err != nil {
			return nil, err
		}
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		return nil, err
	}
	return srv, srv.await(ctx)
}

// await waits until a command runs.
func (srv *sshServer) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		argv := sshArgv("true")
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sshd takes no command: %w: %s", err, out)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// keep opens a connection that later commands share (ControlMaster), once.
func (srv *sshServer) keep(ctx context.Context) error {
	if srv.master != nil {
		return nil
	}
	argv := append([]string{"ssh", "-M", "-N", "-S", controlPath()}, sshArgv()[1:]...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	srv.master = cmd
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if _, err := os.Stat(controlPath()); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("ssh opens no shared connection")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (srv *sshServer) close() {
	for _, cmd := range []*exec.Cmd{srv.master, srv.cmd} {
		if cmd != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		}
	}
}

func controlPath() string { return filepath.Join(sshDir, "control") }

// sshArgv is a command on the other side, with nothing of this machine's
// configuration.
func sshArgv(argv ...string) []string {
	return append([]string{"ssh", "-F", "none", "-T", "-q", "-i", filepath.Join(sshDir, "client"),
		"-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "GlobalKnownHostsFile=none",
		"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + filepath.Join(sshDir, "known_hosts"),
		"root@" + sshServerAddr}, argv...)
}

// sharedArgv is the same over the connection that keep opened.
func sharedArgv(argv ...string) []string {
	return append([]string{"ssh", "-S", controlPath()}, sshArgv(argv...)[1:]...)
}

func writeSSHFiles(ctx context.Context) error {
	for _, key := range []string{"host", "client"} {
		if err := command(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(sshDir, key)); err != nil {
			return err
		}
	}
	host, err := os.ReadFile(filepath.Join(sshDir, "host.pub"))
	if err != nil {
		return err
	}
	client, err := os.ReadFile(filepath.Join(sshDir, "client.pub"))
	if err != nil {
		return err
	}
	// Without PAM sshd wants no more of the account than that it is not locked.
	config := fmt.Sprintf(`ListenAddress %s
HostKey %s/host
AuthorizedKeysFile %s/authorized_keys
PidFile none
UsePAM no
UseDNS no
PermitRootLogin yes
StrictModes no
PrintMotd no
PrintLastLog no
MaxStartups 100
LogLevel ERROR
`, sshServerAddr, sshDir, sshDir)
	for name, text := range map[string]string{
		"sshd_config":     config,
		"authorized_keys": string(client),
		"known_hosts":     sshServerAddr + " " + string(host),
		"shadow":          "root:*:20000:0:99999:7:::\nsshd:!:20000::::::\n",
		// A shell that reads no file of this machine's root when it starts: what
		// that costs is nobody's merit.
		"passwd": "root:x:0:0:root:" + sshDir + ":/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n",
	} {
		if err := os.WriteFile(filepath.Join(sshDir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// becomeSSHD finishes its namespaces, once the cable is there, and becomes sshd.
func becomeSSHD(o order) error {
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return fmt.Errorf("the cable: %w", err)
	}
	ctx := context.Background()
	for _, argv := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "addr", "add", sshServerAddr + "/30", "dev", "bench1"},
		{"ip", "link", "set", "bench1", "up"},
	} {
		if err := command(ctx, argv...); err != nil {
			return err
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	if err := os.Mkdir("/run/sshd", 0o755); err != nil { // sshd wants it for its unprivileged part
		return err
	}
	for _, name := range []string{"shadow", "passwd"} {
		if err := unix.Mount(filepath.Join(sshDir, name), "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide /etc/%s: %w", name, err)
		}
	}
	return unix.Exec(o.Argv[0], o.Argv, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}
