package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	qmpLine   = 1 << 20 // bytes of a message
	qmpTime   = 30 * time.Second
	qmpEvents = 256 // events that wait for someone who looks
)

// message is what QEMU's monitor says: a greeting, an answer or an event
// (docs/interop/qmp-spec.txt of QEMU).
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class       string `json:"class"`
		Description string `json:"desc"`
	} `json:"error"`
	ID    uint64 `json:"id"`
	Event string `json:"event"`
}

func decodeMessage(line []byte) (message, error) {
	var m message
	if len(line) > qmpLine {
		return m, fmt.Errorf("a message is longer than %d bytes", qmpLine)
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("not a message of QMP: %w", err)
	}
	kinds := 0
	for _, is := range []bool{m.Greeting != nil, m.Return != nil, m.Error != nil, m.Event != ""} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return m, errors.New("not a message of QMP: neither greeting, answer nor event")
	}
	return m, nil
}

// monitor is the connection to QEMU's monitor. One request is under way at a
// time.
type monitor struct {
	conn    net.Conn
	greeted chan struct{} // closed at the greeting
	gone    chan struct{} // closed when run ended
	answers chan message
	events  chan string

	op   sync.Mutex // held during a request
	last uint64     // the number of the last request
	err  error      // why run ended
}

func newMonitor(conn net.Conn) *monitor {
	return &monitor{conn: conn, greeted: make(chan struct{}), gone: make(chan struct{}), answers: make(chan message, 1), events: make(chan string, qmpEvents)}
}

// run reads until the connection ends or makes no sense.
func (m *monitor) run() {
	defer close(m.gone)
	r := bufio.NewScanner(m.conn)
	r.Buffer(nil, qmpLine)
	greeted := false
	for r.Scan() {
		msg, err := decodeMessage(r.Bytes())
		switch {
		case err != nil:
			m.err = err
			return
		case msg.Event != "":
			m.keep(msg.Event)
		case msg.Greeting != nil:
			if !greeted {
				greeted = true
				close(m.greeted)
			}
		default:
			select {
			case <-m.answers: // nobody waits for an older one any more
			default:
			}
			m.answers <- msg
		}
	}
	if m.err = r.Err(); m.err == nil {
		m.err = io.EOF
	}
}

// keep keeps an event; the oldest goes if there are too many.
func (m *monitor) keep(event string) {
	for {
		select {
		case m.events <- event:
			return
		default:
		}
		select {
		case <-m.events:
		default:
		}
	}
}

// negotiate waits for the greeting and leaves the mode of negotiation.
func (m *monitor) negotiate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, qmpTime)
	defer cancel()
	select {
	case <-m.greeted:
	case <-m.gone:
		return ErrOff
	case <-ctx.Done():
		return fmt.Errorf("no greeting of the monitor: %w", ctx.Err())
	}
	_, err := m.call(ctx, "qmp_capabilities", nil)
	return err
}

// call makes a request and waits for its answer, for qmpTime at most.
func (m *monitor) call(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	m.op.Lock()
	defer m.op.Unlock()
	ctx, cancel := context.WithTimeout(ctx, qmpTime)
	defer cancel()
	m.last++
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, m.last})
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := m.conn.SetWriteDeadline(deadline); err != nil {
		return nil, m.lost(err)
	}
	if _, err := m.conn.Write(append(request, '\n')); err != nil {
		return nil, m.lost(err)
	}
	for {
		select {
		case a := <-m.answers:
			switch {
			case a.ID != m.last: // of a request that was given up
			case a.Error != nil:
				return nil, fmt.Errorf("QEMU refuses: %s (%s)", a.Error.Description, a.Error.Class)
			default:
				return a.Return, nil
			}
		case <-m.gone:
			return nil, m.lost(m.err)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lost is ErrOff if the error only says that the other end is gone.
func (m *monitor) lost(err error) error {
	if ended(err) {
		return ErrOff
	}
	return err
}

// await waits for an event; those before it are forgotten.
func (m *monitor) await(ctx context.Context, event string) error {
	for {
		select {
		case e := <-m.events:
			if e == event {
				return nil
			}
			continue
		default:
		}
		select {
		case e := <-m.events:
			if e == event {
				return nil
			}
		case <-m.gone:
			if len(m.events) == 0 {
				return ErrOff
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
