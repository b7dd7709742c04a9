package lab

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// join is what a node needs in order to become a member.
type join struct {
	token string // a secret
	addr  string // host:port of a member
}

// firstCommands are run in the node before its first PID 1.
func (m *machine) firstCommands() [][]string {
	list := [][]string{{"/sbin/ssi", "--install", linkDir}}
	if m.n == 1 {
		found := []string{
			"/sbin/ssi", "cluster", "init", "--name", m.s.opts.Name, "--node", "1", "--addr", Addr(1) + ":" + icsPort,
			"--profile", m.s.opts.Profile,
		}
		if others := m.s.opts.Nodes - 1; others > 0 {
			found = append(found, "--tokens", strconv.Itoa(others), "--tokens-out", tokensPath)
		}
		list = append(list, found)
	}
	return list
}

// takeTokens reads the tokens that `ssi cluster init` made, one a line, and
// removes their file.
func (m *machine) takeTokens(want int) ([]string, error) {
	path := m.pathIn(tokensPath)
	raw, err := os.ReadFile(path)
	if err != nil && (want > 0 || !os.IsNotExist(err)) {
		return nil, fmt.Errorf("lab: tokens of `ssi cluster init`: %w", err)
	}
	_ = os.Remove(path)
	list := strings.Fields(string(raw))
	if len(list) < want {
		return nil, errno.New(errno.Other, "", 0, "`ssi cluster init` made %d tokens, %d are needed", len(list), want)
	}
	return list, nil
}

// writeJoin leaves token and address where the node role finds them: the token in
// the first line, an address in each of the others.
func (m *machine) writeJoin(j *join) error {
	if j == nil {
		return nil
	}
	return writeNew(m.pathIn(joinPath), j.token+"\n"+j.addr+"\n", 0o600)
}

// token asks the cluster for a token for node n, through any node that is on.
func (s *supervisor) token(ctx context.Context, n id.Node) (*join, error) {
	err := error(errno.New(errno.Unavailable, "add", 0, "no node of the lab is on: start one (`ssi lab start 1`)"))
	for _, m := range s.all() {
		c, derr := m.dial(ctx)
		if derr != nil {
			continue
		}
		var reply api.TokenReply
		err = c.Call(ctx, api.MethodClusterToken, api.TokenParams{Node: n}, &reply)
		_ = c.Close()
		if err == nil {
			if len(reply.Addrs) == 0 {
				reply.Addrs = []string{Addr(m.n) + ":" + icsPort}
			}
			return &join{token: reply.Token, addr: strings.Join(reply.Addrs, "\n")}, nil
		}
	}
	return nil, err
}

// dial connects to the node daemon of a node that is on.
func (m *machine) dial(ctx context.Context) (*api.Client, error) {
	state, l := m.get()
	if state != On || l == nil {
		return nil, errno.New(errno.Unavailable, "connect", m.n, "it is %s", state)
	}
	return api.DialPath(ctx, fmt.Sprintf("/proc/%d/root%s", l.pid, socketPath))
}
