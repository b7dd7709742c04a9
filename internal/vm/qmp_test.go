package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`

// fakeQEMU answers each request with the lines that answer returns, until it
// returns none.
func fakeQEMU(t *testing.T, first string, answer func(execute string, id uint64) string) *monitor {
	t.Helper()
	ours, theirs := pipePair(t)
	m := newMonitor(ours)
	done := make(chan struct{})
	go func() { defer close(done); serve(theirs, first, answer) }()
	go m.run()
	t.Cleanup(func() {
		_ = ours.Close()
		<-done
		<-m.gone
	})
	return m
}

func serve(c net.Conn, first string, answer func(string, uint64) string) {
	defer c.Close()
	fmt.Fprint(c, first)
	r := bufio.NewScanner(c)
	for r.Scan() {
		var request struct {
			Execute string
			ID      uint64
		}
		if json.Unmarshal(r.Bytes(), &request) != nil {
			return
		}
		say := answer(request.Execute, request.ID)
		if say == "" {
			return
		}
		fmt.Fprint(c, say)
	}
}

func TestMonitor(t *testing.T) {
	m := fakeQEMU(t, greeting+"\r\n", func(execute string, id uint64) string {
		event := `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESET", "data": {"guest": true}}` + "\n"
		switch execute {
		case "qmp_capabilities":
			return fmt.Sprintf(`{"return": {}, "id": %d}`+"\r\n", id)
		case "query-status": // with an event and a late answer before it
			return event + fmt.Sprintf(`{"return": {"stale": 1}, "id": %d}`+"\n"+`{"return": {"running": true}, "id": %d}`+"\n", id-1, id)
		case "bad":
			return fmt.Sprintf(`{"id": %d, "error": {"class": "CommandNotFound", "desc": "The command bad has not been found"}}`+"\n", id)
		case "null":
			return fmt.Sprintf(`{"return": null, "id": %d}`+"\n", id)
		case "silent":
			return "\n"[:0] + `{"event": "STOP"}` + "\n"
		}
		return ""
	})
	if err := m.negotiate(within(t)); err != nil {
		t.Fatal(err)
	}
	if got, err := m.call(within(t), "query-status", nil); err != nil || string(got) != `{"running": true}` {
		t.Errorf("answer %s, %v", got, err)
	}
	if err := m.await(within(t), "RESET"); err != nil {
		t.Error(err)
	}
	if _, err := m.call(within(t), "bad", map[string]any{"x": 1}); err == nil || !strings.Contains(err.Error(), "The command bad has not been found (CommandNotFound)") {
		t.Errorf("a refusal: %v", err)
	}
	if got, err := m.call(within(t), "null", nil); err != nil || string(got) != "null" {
		t.Errorf("answer %s, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _ = m.await(within(t), "STOP"); cancel() }()
	if _, err := m.call(ctx, "silent", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("no answer: %v", err)
	}
	if _, err := m.call(within(t), "die", nil); !errors.Is(err, ErrOff) {
		t.Errorf("QEMU ends instead of answering: %v", err)
	}
	if _, err := m.call(within(t), "query-status", nil); !errors.Is(err, ErrOff) {
		t.Errorf("QEMU has ended: %v", err)
	}
	if err := m.await(within(t), "STOP"); !errors.Is(err, ErrOff) {
		t.Errorf("wait for an event of a QEMU that has ended: %v", err)
	}
	if err := m.negotiate(within(t)); !errors.Is(err, ErrOff) {
		t.Errorf("negotiate with a QEMU that has ended: %v", err)
	}
}

// What is no QMP ends the connection with the reason.
func TestMonitorNonsense(t *testing.T) {
	for first, want := range map[string]string{
		"HTTP/1.1 400 Bad Request\n":          "not a message of QMP",
		`{"return": {}, "event": "X"}` + "\n": "not a message of QMP",
		strings.Repeat("x", 2*qmpLine):        "too long",
	} {
		m := fakeQEMU(t, greeting+"\n", func(string, uint64) string { return first })
		if _, err := m.call(within(t), "x", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q", first, err, want)
		}
	}
}

// Nobody needs to look at events.
func TestMonitorEventFlood(t *testing.T) {
	flood := strings.Repeat(`{"event": "NIC_RX_FILTER_CHANGED"}`+"\n", 4*qmpEvents)
	m := fakeQEMU(t, greeting+"\n"+flood+`{"event": "SHUTDOWN"}`+"\n", func(_ string, id uint64) string { return fmt.Sprintf(`{"return": {}, "id": %d}`+"\n", id) })
	if err := m.negotiate(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := m.await(within(t), "SHUTDOWN"); err != nil {
		t.Error(err)
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{greeting, `{"return": {}, "id": 1}`, `{"error": {"class": "GenericError", "desc": "x"}, "id": 2}`, `{"event": "STOP", "timestamp": {}}`, `{"error": null}`, `[]`, `{"id": "x"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := decodeMessage(in)
		if err != nil {
			return
		}
		if m.Greeting == nil && m.Return == nil && m.Error == nil && m.Event == "" {
			t.Fatalf("%q is a message of no kind", in)
		}
	})
}
