package member

import (
	"encoding/json"
	"errors"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Op names a command.
type Op string

// The commands. Join, Expire, CleanupDone and InitTaken come from the leader
// only.
const (
	Join        Op = "join"         // Node, Incarnation, Info: NEVERUP or DOWN to COMINGUP
	MarkUp      Op = "up"           // Node, Incarnation: COMINGUP to UP
	SetState    Op = "set-state"    // Node, To: what an operator may set, see State.Settable; to KCLEANUP the leader expires the life Incarnation
	Expire      Op = "expire"       // Node, Incarnation: alive to KCLEANUP
	CleanupDone Op = "cleanup-done" // Node, Incarnation, To: to UCLEANUP, or to DOWN
	Leave       Op = "leave"        // Node, Incarnation: orderly, through to KCLEANUP
	Remove      Op = "remove"       // Node: forget a DOWN node
	InitTaken   Op = "init-taken"   // Node, Incarnation, Term
)

// Command is one change asked of the membership.
type Command struct {
	Op          Op             `json:"op"`
	Node        id.Node        `json:"node"`
	Incarnation id.Incarnation `json:"incarnation,omitempty"`
	Info        *Info          `json:"info,omitempty"`
	To          State          `json:"to,omitempty"`
	Term        uint64         `json:"term,omitempty"`
	Cause       string         `json:"cause,omitempty"`
}

// Encode is the form a command has in the log.
func (c Command) Encode() []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // plain data: cannot fail
	}
	return b
}

// DecodeCommand reads what Encode wrote. Fields it does not know are ignored.
func DecodeCommand(b []byte) (Command, error) {
	var c Command
	if err := json.Unmarshal(b, &c); err != nil {
		return c, errno.New(errno.Invalid, "membership command", 0, "%w", err)
	}
	return c, nil
}

// Result is what a command came to: the epoch after it, or why it was refused.
type Result struct {
	Epoch id.Epoch   `json:"epoch,omitempty"`
	Kind  errno.Kind `json:"kind,omitempty"`
	Text  string     `json:"text,omitempty"`
	Op    string     `json:"op,omitempty"`
	Node  id.Node    `json:"node,omitempty"`
	Fail  bool       `json:"fail,omitempty"`
}

// ResultOf is the result of a command that ended at epoch e with err.
func ResultOf(e id.Epoch, err error) Result {
	if err == nil {
		return Result{Epoch: e}
	}
	r := Result{Epoch: e, Fail: true, Kind: errno.KindOf(err), Text: err.Error()}
	var ee *errno.Error
	if errors.As(err, &ee) {
		r.Op, r.Node, r.Text = ee.Op, ee.Node, ee.Text
	}
	return r
}

// Encode is the form a result travels in.
func (r Result) Encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain data: cannot fail
	}
	return b
}

// DecodeResult reads what Encode wrote; err is the refusal, if it was one.
func DecodeResult(b []byte) (id.Epoch, error) {
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return 0, errno.New(errno.Invalid, "membership result", 0, "%w", err)
	}
	if r.Fail {
		return r.Epoch, &errno.Error{Op: r.Op, Node: r.Node, Kind: r.Kind, Text: r.Text}
	}
	return r.Epoch, nil
}
