package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/id"
	"ssi/lab"
)

// Where things are in the mount namespace of the run. A tmpfs hides what the
// machine has at base; nothing of it is left afterwards.
const (
	base      = "/mnt"
	shareDir  = base + "/share" // the nodes see it too
	cgroupDir = base + "/cgroup"
	etcdDir   = base + "/etcd"
	sshDir    = base + "/ssh"
	pkiDir    = base + "/pki"
)

// nodes is how many nodes and members the clusters have.
const nodes = 3

// site is where the run takes place.
type site struct {
	ssi   string // the binary that is measured
	self  string // this program, where nodes see it too
	empty string // a Go program that does nothing; "" if there is no compiler
	lab   *lab.Lab
	ssh   *sshServer // nil until it is needed
}

// newSite prepares the namespaces that inside made.
func newSite(ctx context.Context, binary string) (*site, error) {
	s := &site{ssi: binary, self: filepath.Join(shareDir, "bench")}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return nil, fmt.Errorf("mount a tmpfs at %s: %w", base, err)
	}
	for _, dir := range []string{shareDir, cgroupDir, etcdDir, sshDir, pkiDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := unix.Mount("cgroup2", cgroupDir, "cgroup2", 0, ""); err != nil {
		return nil, fmt.Errorf("mount cgroup v2: %w", err)
	}
	if err := command(ctx, "ip", "link", "set", "lo", "up"); err != nil {
		return nil, err
	}
	if err := copyFile(s.self, "/proc/self/exe"); err != nil {
		return nil, err
	}
	s.buildEmpty(ctx)
	return s, nil
}

func (s *site) close() error {
	if s.ssh != nil {
		s.ssh.close()
	}
	return s.endLab()
}

// buildEmpty makes the smallest Go program, if it can.
func (s *site) buildEmpty(ctx context.Context) {
	src := filepath.Join(base, "empty.go")
	out := filepath.Join(shareDir, "empty")
	if os.WriteFile(src, []byte("package main\n\nfunc main() {}\n"), 0o644) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", out, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if msg, err := cmd.CombinedOutput(); err != nil {
		s.say("no empty Go program to compare with: %v: %s", err, strings.TrimSpace(string(msg)))
		return
	}
	s.empty = out
}

// The timing profiles that are measured.
const (
	profileFast = "fast" // of the common lab, and of all promises about times
	profileLAN  = "lan"  // what a cluster has that asks for none
)

func (s *site) options(name, profile string) lab.Options { return s.optionsOf(name, profile, nodes) }

func (s *site) optionsOf(name, profile string, nodes int) lab.Options {
	return lab.Options{Name: fmt.Sprintf("bench-%s-%d", name, os.Getpid()), Nodes: nodes, Profile: profile, Binary: s.ssi, Share: []string{shareDir}}
}

// startLab starts the common lab unless it runs.
func (s *site) startLab(ctx context.Context) error { return s.startProfile(ctx, profileFast) }

func (s *site) startProfile(ctx context.Context, profile string) error {
	if s.lab != nil {
		return nil
	}
	s.say("starting a lab of %d nodes, profile %s", nodes, profile)
	l, err := lab.Start(ctx, s.options("common", profile))
	if err != nil {
		return err
	}
	s.lab = l
	_, err = s.allVote(ctx)
	return err
}

// startNodes starts a lab of that many nodes as the common one; the group that
// needs it ends it.
func (s *site) startNodes(ctx context.Context, nodes int) error {
	if err := s.endLab(); err != nil {
		return err
	}
	s.say("starting a lab of %d nodes, profile %s", nodes, profileFast)
	l, err := lab.Start(ctx, s.optionsOf("nodes", profileFast, nodes))
	if err != nil {
		return err
	}
	s.lab = l
	return nil
}

func (s *site) endLab() error {
	if s.lab == nil {
		return nil
	}
	l := s.lab
	s.lab = nil
	return l.Close()
}

// allVote waits until the cluster can lose any of its nodes and all of them agree
// on who holds init, which it returns.
func (s *site) allVote(ctx context.Context) (id.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		holder, err := s.agreed(ctx)
		if err == nil {
			return holder, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the nodes of the lab are not well in time: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// agreed is the holder of init if every node serves and says that it is and that
// all nodes are UP and vote. A single node may not have noticed yet that another
// one restarted.
func (s *site) agreed(ctx context.Context) (id.Node, error) {
	var first api.ClusterStatus
	for n := id.Node(1); n <= nodes; n++ {
		st, err := s.status(ctx, n)
		if err != nil {
			return 0, err
		}
		voters := 0
		for _, o := range st.Nodes {
			if o.State == api.Up && o.Role == api.RoleVoter {
				voters++
			}
		}
		if n == 1 {
			first = st
		}
		switch {
		case !st.Serving:
			return 0, fmt.Errorf("node %d does not serve: %s", n, st.Cause)
		case voters != nodes:
			return 0, fmt.Errorf("node %d sees %d voters that are UP", n, voters)
		case st.InitNode == 0 || st.InitNode != first.InitNode || st.InitTerm != first.InitTerm:
			return 0, fmt.Errorf("node %d does not agree who holds init", n)
		}
	}
	return first.InitNode, nil
}

// status is the cluster as node n sees it.
func (s *site) status(ctx context.Context, n id.Node) (api.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var st api.ClusterStatus
	c, err := s.dial(ctx, n)
	if err != nil {
		return st, err
	}
	defer c.Close()
	return st, c.Call(ctx, api.MethodClusterStatus, api.StatusParams{}, &st)
}

// dial connects to the daemon of a node of the common lab, from outside: its
// root directory is reached through its PID 1.
func (s *site) dial(ctx context.Context, n id.Node) (*api.Client, error) {
	roles, err := s.roles(n)
	if err != nil {
		return nil, err
	}
	return api.DialPath(ctx, fmt.Sprintf("/proc/%d/root%s", roles[roleInit], api.Socket))
}

// The roles of a node, by their names on the command line.
const (
	roleInit  = "init"
	roleNode  = "node"
	roleSpawn = "spawn"
	roleMount = "mount"
)

func (s *site) cgroup(n id.Node) string {
	return filepath.Join(cgroupDir, "ssi-lab-"+s.lab.Name, lab.Host(n))
}

// roles finds the PIDs of the roles of a node of the common lab.
func (s *site) roles(n id.Node) (map[string]int, error) {
	roles := map[string]int{}
	err := filepath.WalkDir(s.cgroup(n), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return err
		}
		for _, f := range strings.Fields(string(b)) {
			line, err := os.ReadFile("/proc/" + f + "/cmdline")
			if err != nil {
				continue // it ended
			}
			if argv := strings.Split(string(line), "\x00"); len(argv) > 1 && strings.HasSuffix(argv[0], "ssi") {
				if pid, err := strconv.Atoi(f); err == nil && roles[argv[1]] == 0 {
					roles[argv[1]] = pid
				}
			}
		}
		return nil
	})
	if err == nil && roles[roleInit] == 0 {
		err = errors.New("it has no PID 1")
	}
	if err != nil {
		return roles, fmt.Errorf("node %d of the lab: %w", n, err)
	}
	return roles, nil
}

// command runs a program that must succeed.
func command(ctx context.Context, argv ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
