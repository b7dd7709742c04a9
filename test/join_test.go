package test

import (
	"context"
	"strings"
	"testing"
	"time"

	"ssi/internal/api"
	"ssi/internal/id"
)

// joinAgain tries a token as another machine would: with state and configuration
// of its own, from the address of node n.
func (c *cluster) joinAgain(n id.Node, token string) (string, int) {
	c.t.Helper()
	return c.try(n, "unshare", "-m", "sh", "-c", `mount -t tmpfs none /var/lib/ssi && mount -t tmpfs none /etc/ssi &&
		printf '%s\n' "$0" | SSI_SOCKET=/nowhere cluster join --addr 10.85.0.`+n.String()+`:1985 10.85.0.1`, token)
}

func (c *cluster) token(p api.TokenParams) string {
	c.t.Helper()
	r, err := call[api.TokenReply](c.ctx(), c, 1, api.MethodClusterToken, p)
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Token
}

// awaitLog waits until the console of node n says all of these in one line.
func (c *cluster) awaitLog(n id.Node, says ...string) {
	c.t.Helper()
	c.await(n, "log: "+strings.Join(says, ", "), func(*api.ClusterStatus) bool {
		var b strings.Builder
		if err := c.Logs(context.Background(), n, false, &b); err != nil {
			return false
		}
		for line := range strings.Lines(b.String()) {
			found := true
			for _, s := range says {
				found = found && strings.Contains(line, s)
			}
			if found {
				return true
			}
		}
		return false
	})
}

// TestTokens tries what a stranger may try: a token that was made up, used
// before, is too old, or is of another cluster. Each is refused with the reason in
// the log of the node that was asked.
func TestTokens(t *testing.T) {
	c := start(t, 2)
	if out, status := c.joinAgain(2, "ssi1-nonsense"); status == 0 || !strings.Contains(out, "token") {
		t.Errorf("a made-up token: status %d, %q", status, out)
	}

	token := c.token(api.TokenParams{})
	out, status := c.joinAgain(2, token)
	if status != 0 || !strings.Contains(out, "node 3") {
		t.Fatalf("a good token: status %d, %q", status, out)
	}
	if out, status := c.joinAgain(2, token); status != 1 || !strings.Contains(out, "refused") || strings.Contains(out, token) {
		t.Errorf("a used token: status %d, %q", status, out)
	}
	c.awaitLog(1, "already used")

	short, err := call[api.TokenReply](c.ctx(), c, 1, api.MethodClusterToken, api.TokenParams{TTL: time.Second})
	c.ok(err)
	timer := time.NewTimer(time.Until(short.Expires.Add(time.Second)))
	defer timer.Stop()
	<-timer.C // the time is the matter of this test
	if out, status := c.joinAgain(2, short.Token); status != 1 {
		t.Errorf("an expired token: status %d, %q", status, out)
	}
	c.awaitLog(1, "expired")

	other := start(t, 1, named("other"))
	foreign := other.token(api.TokenParams{})
	// Here it is the joiner that refuses: the cluster it reached is not the one
	// that its token pins.
	if out, status := c.joinAgain(2, foreign); status != 1 || !strings.Contains(out, "not of the token's cluster") {
		t.Errorf("a token of another cluster: status %d, %q", status, out)
	}
	c.awaitLog(1, "refuses this node")
}

// TestAddAndRevoke adds a node by a token and takes its certificate away again:
// it goes down at once and cannot come back.
func TestAddAndRevoke(t *testing.T) {
	c := start(t, 3)
	n, err := c.Add(c.ctx())
	c.ok(err)
	c.state(1, n, api.Up)
	c.do(1, "onnode", n.String(), "true")
	c.do(1, "cluster", "revoke", n.String())
	c.await(1, "the revoked node is forgotten", func(s *api.ClusterStatus) bool {
		_, known := s.Find(n)
		return !known
	})
	c.awaitLog(1, "revoked")
	c.fails(1, 255, []string{"node " + n.String()}, "onnode", n.String(), "true")
	for _, tr := range c.history(1) {
		if tr.Node == n && tr.To == api.KCleanup && !strings.Contains(tr.Cause, "revoked") {
			t.Errorf("the history says %q", tr.Cause)
		}
	}
	c.fails(1, 1, []string{"no node 77"}, "cluster", "revoke", "77")
}
