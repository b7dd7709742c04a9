package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestReaderLeaves: a reader of a stream that goes away is no news.
func TestReaderLeaves(t *testing.T) {
	var log bytes.Buffer
	s := NewServer(slog.New(slog.NewTextHandler(&log, nil)))
	ended := make(chan struct{}, 10)
	s.Handle("ssi.test.Watch", func(ctx context.Context, c *Call) error {
		defer func() { ended <- struct{}{} }()
		if err := c.Send(1); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	start(t, s)
	left := errors.New("enough")
	for range cap(ended) {
		client := dial(t)
		if err := client.Stream(t.Context(), "ssi.test.Watch", nil, func(json.RawMessage) error { return left }); !errors.Is(err, left) {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		<-ended
	}
	s.Close()
	if strings.Contains(log.String(), "local call") {
		t.Errorf("the log says:\n%s", log.String())
	}
}

// TestLastReply: what a handler says while the server closes is read.
func TestLastReply(t *testing.T) {
	s := NewServer(slog.New(slog.DiscardHandler))
	called := make(chan struct{})
	s.Handle("ssi.test.End", func(ctx context.Context, c *Call) error {
		close(called)
		<-ctx.Done()
		return c.Reply("bye")
	})
	start(t, s)
	client := dial(t)
	go func() { <-called; s.Close() }()
	var got string
	if err := client.Call(t.Context(), "ssi.test.End", nil, &got); err != nil || got != "bye" {
		t.Errorf("%q, %v", got, err)
	}
}
