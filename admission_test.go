package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Reports arrive in order; a server that hangs holds nobody up.
func TestReporter(t *testing.T) {
	got := make(chan string, maxReports)
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var said struct{ Phase, Text string }
		if err == nil {
			err = json.Unmarshal(body, &said)
		}
		if err != nil || r.URL.Path != "/v1/progress" {
			t.Errorf("%s: %q: %v", r.URL.Path, body, err)
		}
		got <- said.Phase + ": " + said.Text
		if said.Phase == "hang" {
			<-hang
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	defer close(hang)
	r := newReporter(slog.New(slog.DiscardHandler), server.URL, "52:54:00:55:00:02")
	r.say("admission", "waits for approval")
	r.say("joined", "it has its certificate")
	r.say("hang", "")
	for _, want := range []string{"admission: waits for approval", "joined: it has its certificate", "hang: "} {
		select {
		case s := <-got:
			if s != want {
				t.Errorf("%q, not %q", s, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("not reported: " + want)
		}
	}
	for range 2 * maxReports {
		r.say("admission", "more than fits")
	}
	r.close()
	if len(got) != 0 {
		t.Errorf("%d reports after the end", len(got))
	}
	(*reporter)(nil).close()
}
