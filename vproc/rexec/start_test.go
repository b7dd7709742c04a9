package rexec

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"ssi/internal/errno"
)

// TestCommandsWaitForTheStart: what is asked of a daemon that has just started is
// done once the node serves, and refused once it is known that it does not.
func TestCommandsWaitForTheStart(t *testing.T) {
	const cause = "the node is starting"
	for name, c := range map[string]struct {
		then func(s *Server, hangUp func())
		code errno.Kind
		text string
	}{
		"serves":    {func(s *Server, _ func()) { s.Unfence() }, 0, ""},
		"fenced":    {func(s *Server, _ func()) { s.Fence("no contact") }, errno.Fenced, "no contact"},
		"hung up":   {func(_ *Server, hangUp func()) { hangUp() }, errno.Fenced, cause},
		"no answer": {func(*Server, func()) {}, errno.Fenced, cause},
		"ends":      {func(s *Server, _ func()) { s.Close() }, errno.Unavailable, "shutting down"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s, err := NewServer(Config{Node: 1, RunDir: dir, Fenced: cause, Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				ctx, hangUp := context.WithCancel(t.Context())
				defer hangUp()
				r := &relay{}
				answer := make(chan *Failure, 1)
				go func() { answer <- s.enter(ctx, r, 2, &s.relays) }()
				synctest.Wait()
				select {
				case f := <-answer:
					t.Fatalf("no wait for the start: %v", f)
				default:
				}
				c.then(s, hangUp)
				switch f := <-answer; {
				case f == nil:
					s.leave(r, &s.relays)
					if c.code != 0 {
						t.Error("a node that does not serve runs it")
					}
				case c.code == 0, !errno.Is(f.Err, c.code), !strings.Contains(f.Err.Error(), c.text):
					t.Errorf("refused: %v", f.Err)
				}
				if name != "ends" {
					s.Close()
				}
			})
		})
	}
}
