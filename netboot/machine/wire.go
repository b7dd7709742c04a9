package machine

import (
	"encoding/json"
	"errors"
	"fmt"
)

// The paths of the HTTP server, for POST; bodies and answers are JSON.
const (
	PathAdmit    = "/v1/admit"
	PathProgress = "/v1/progress"
)

// request asks for admission.
type request struct {
	MAC   MAC    `json:"mac"`
	Key   []byte `json:"key"`  // public: X25519
	Boot  string `json:"boot"` // /proc/sys/kernel/random/boot_id: random(4)
	Phase string `json:"phase,omitempty"`
}

// The states of an answer.
const (
	stateWait     = "wait"
	stateDenied   = "denied"
	stateAgain    = "again"
	stateAdmitted = "admitted"
)

// answer is what a request gets.
type answer struct {
	State  string `json:"state"`
	Why    string `json:"why,omitempty"`
	Sealed []byte `json:"sealed,omitempty"`
}

// progress is what a machine says of its boot.
type progress struct {
	MAC   MAC    `json:"mac"`
	Phase string `json:"phase"`
	Text  string `json:"text,omitempty"`
}

func parseRequest(body []byte) (request, error) {
	var r request
	if err := parseBody(body, &r); err != nil {
		return r, err
	}
	switch {
	case r.MAC == MAC{}:
		return r, errors.New("the MAC address is missing")
	case len(r.Key) != keySize:
		return r, fmt.Errorf("the key has %d bytes, not %d", len(r.Key), keySize)
	case r.Boot == "" || len(r.Boot) > maxBootID || printable(r.Boot, maxBootID) != r.Boot:
		return r, errors.New("the boot ID is missing or malformed")
	}
	r.Phase = printable(r.Phase, maxPhase)
	return r, nil
}

func parseProgress(body []byte) (progress, error) {
	var p progress
	if err := parseBody(body, &p); err != nil {
		return p, err
	}
	if p.MAC == (MAC{}) || p.Phase == "" {
		return p, errors.New("the MAC address or the phase is missing")
	}
	p.Phase, p.Text = printable(p.Phase, maxPhase), printable(p.Text, maxText)
	return p, nil
}

func parseBody(body []byte, v any) error {
	if len(body) > MaxBody {
		return fmt.Errorf("%d bytes are too many, the limit is %d", len(body), MaxBody)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("malformed: %w", err)
	}
	return nil
}

func parseAnswer(body []byte) (answer, error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("malformed answer: %w", err)
	}
	switch a.State {
	case stateWait, stateDenied, stateAgain, stateAdmitted:
	default:
		return a, fmt.Errorf("malformed answer: state %.32q", a.State)
	}
	a.Why = printable(a.Why, 2*maxText)
	return a, nil
}
