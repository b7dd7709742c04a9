package rexec

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/proc"
)

const (
	openTime  = 10 * time.Second // to open a stream to another node, or to receive a request on it
	spawnTime = 10 * time.Second // to create a process

	// maxHeader is the longest request that travels in the header of a stream;
	// longer ones follow it.
	maxHeader = 60 << 10
)

// HandleAPI serves the method api.ExecRun.
func (s *Server) HandleAPI(ctx context.Context, call *api.Call) error {
	var in api.ExecRequest
	if err := call.Params(&in); err != nil {
		return err
	}
	req, err := s.requestOf(call, &in)
	if err != nil {
		return err
	}
	if in.Node != 0 && in.Node != s.c.Node {
		return s.relay(ctx, call, in.Node, req)
	}
	if in.Files&surrogate != 0 && inProcessSpace(call.Peer.PID) {
		_, err := call.Upgrade(api.ExecReply{Here: true, Node: s.c.Node})
		return err
	}
	req.spec.Place = proc.Place{}
	conn, err := call.Upgrade(api.ExecReply{})
	if err != nil {
		return err
	}
	w := newWaker(call)
	defer w.close()
	s.run(ctx, 0, req, conn, w)
	return nil
}

// requestOf makes a request of what the caller asks and what the kernel tells
// of the caller.
func (s *Server) requestOf(call *api.Call, in *api.ExecRequest) (*request, error) {
	if in.Node != 0 && !in.Node.Valid() {
		return nil, errno.New(errno.Invalid, "", 0, "%d is not a node number", in.Node)
	}
	req := &request{files: in.Files & (noStdin | splitStderr | background), term: in.Term}
	if in.Term == nil {
		req.files &^= background
	}
	req.spec = proc.Spec{
		Argv: splitNUL(in.Argv), Path: string(in.Path), Env: splitNUL(in.Env), Dir: string(in.Dir),
		UID: call.Peer.UID, GID: call.Peer.GID, Groups: call.Peer.Groups,
		Umask: in.Umask & 0o777, Session: in.Term != nil, Background: req.files&background != 0,
	}
	if len(req.spec.Argv) == 0 || req.spec.Argv[0] == "" && req.spec.Path == "" || bytes.IndexByte(in.Path, 0) >= 0 {
		return nil, errno.New(errno.Invalid, "", 0, "no command")
	}
	if len(req.spec.Dir) == 0 || req.spec.Dir[0] != '/' {
		return nil, errno.New(errno.Invalid, "", 0, "the working directory %q is not an absolute path", req.spec.Dir)
	}
	if err := fromProcess(call, &req.spec, in.Files&surrogate != 0); err != nil {
		return nil, errno.New(errno.Other, "", 0, "limits of process %d: %w", call.Peer.PID, err)
	}
	return req, nil
}

// fromProcess fills in nice value and resource limits of the caller, and its place if
// it is to stand for the command. The pidfd
// proves afterwards that the PID was the caller's all the time.
func fromProcess(call *api.Call, spec *proc.Spec, asSurrogate bool) error {
	if call.Peer.PID == 0 { // of a PID namespace that is not below this one: nothing is known, and 0 means "self" below
		return nil
	}
	pidfd, err := call.PeerPidfd()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(pidfd) }()
	pid := int(call.Peer.PID)
	prio, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
	if err != nil {
		return err
	}
	if asSurrogate && inProcessSpace(call.Peer.PID) {
		spec.Place, spec.Ignored = placeOf(call.Peer.PID), ignoredBy(call)
	}
	spec.Nice = int8(20 - prio)                                     // the system call returns 20-nice
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/limits") // prlimit(2) would need CAP_SYS_RESOURCE
	if err != nil {
		return err
	}
	if spec.Limits, err = parseLimits(string(b)); err != nil {
		return err
	}
	lowerFiles(pid, spec.Limits)
	return unix.PidfdSendSignal(pidfd, 0, nil, 0)
}

// lowerFiles undoes what package syscall of Go (rlimit.go) does before main of a
// client: it raises the soft limit of open files to one below the hard one, and
// does not tell what it was. The process that started the client still has it,
// unless it changed the limit for the client alone.
func lowerFiles(pid int, limits []proc.Rlimit) {
	r, ok := proc.RelativesOf(int32(pid))
	if !ok {
		return
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(r.Parent)) + "/limits")
	if err != nil {
		return
	}
	parent, err := parseLimits(string(b))
	if err != nil || len(parent) != len(limits) {
		return
	}
	own, was := &limits[unix.RLIMIT_NOFILE], parent[unix.RLIMIT_NOFILE]
	if own.Cur+1 == own.Max && was.Max == own.Max && was.Cur < own.Cur {
		own.Cur = was.Cur
	}
}

// parseLimits reads the table of proc_pid_limits(5): a line for each resource in
// the order of their numbers, in columns of 26, 21 and 21 characters.
func parseLimits(table string) ([]proc.Rlimit, error) {
	var list []proc.Rlimit
	for i, line := range strings.Split(strings.TrimSuffix(table, "\n"), "\n") {
		if i == 0 {
			continue // the heading
		}
		if len(line) < 68 {
			return nil, errors.New("limits of another layout")
		}
		cur, err := parseLimit(line[26:47])
		if err != nil {
			return nil, err
		}
		max, err := parseLimit(line[47:68])
		if err != nil {
			return nil, err
		}
		list = append(list, proc.Rlimit{Resource: uint8(i - 1), Cur: cur, Max: max})
	}
	return list, nil
}

func parseLimit(s string) (uint64, error) {
	if s = strings.TrimSpace(s); s == "unlimited" {
		return unix.RLIM_INFINITY, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// notStarted explains an error of the spawn role like a shell.
func (s *Server) notStarted(ctx context.Context, name string, err error) *Failure {
	var f *proc.Failure
	if !errors.As(err, &f) {
		late := errors.Is(ctx.Err(), context.DeadlineExceeded) || ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded)
		if late {
			s.log.Error("the spawn role hangs and is started anew", "op", "spawn", "err", err)
			if s.c.RestartSpawn != nil {
				if rerr := s.c.RestartSpawn(); rerr != nil {
					s.log.Error("restart of the spawn role", "op", "spawn", "err", rerr)
				}
			}
			return lost(errno.Timeout, s.c.Node, "%s: was not started within %s; is its file system dead?", name, spawnTime)
		}
		return lost(errno.Unavailable, s.c.Node, "%s: %w", name, err)
	}
	node := s.c.Node
	switch {
	case f.Op == "chdir":
		return &Failure{126, errno.New(errno.NotFound, "", node, "cannot enter the working directory %s: %w", f.Path, f.Errno)}
	case f.Op == "exec" && f.Errno == unix.ENOENT:
		return &Failure{127, errno.New(errno.NotFound, "", node, "%s: not found", name)}
	case f.Op == "exec" && f.Errno == unix.EACCES:
		return &Failure{126, errno.New(errno.Permission, "", node, "%s: permission denied", name)}
	case f.Op == "exec":
		return &Failure{126, errno.New(errno.Other, "", node, "%s: %w", name, f.Errno)}
	}
	return lost(errno.Other, node, "%s: %s: %w", name, f.Op, f.Errno)
}
