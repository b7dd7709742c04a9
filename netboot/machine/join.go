package machine

import (
	"bytes"
	"context"
	"crypto/hpke"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"ssi/internal/config"
)

const (
	tryTimeout = 20 * time.Second // of one request: above the server's own deadline
	dialTime   = 4 * time.Second  // for the connection: a node that is gone says nothing
	firstPause = time.Second      // after a try; it grows
	lastPause  = 4 * time.Second  // and ends here
	bootIDPath = "/proc/sys/kernel/random/boot_id"
)

// Why a machine is not admitted. The errors of Join wrap one of these or the
// cause of its context.
var (
	// ErrDenied is the end of this request: an operator said no, or another machine
	// has asked in its name.
	ErrDenied = errors.New("the cluster refuses this machine")
	// ErrBootAgain means that only another boot from the network helps.
	ErrBootAgain = errors.New("this machine must boot again, from the network")
)

// Join asks the cluster at url (http://HOST:PORT) to admit this machine, whose
// MAC booted from it, and returns its join file (config.ParseJoin), which is a
// secret. It waits as long as the cluster lets it wait or is out of reach, until
// ctx ends; say gets each new reason, a line for the console. Every try has a
// deadline of its own. If no cluster answers at url it asks the segment who boots
// machines now, and goes on there.
//
// The key of this boot is kept in dir, which no other user may read: a second
// Join, because the token expired before it was used or because the process was
// restarted, must ask with the same one.
func Join(ctx context.Context, dir, url, mac string, say func(text string)) ([]byte, error) {
	id, err := os.ReadFile(bootIDPath)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	j, err := newJoiner(dir, url, mac, strings.TrimSpace(string(id)), say)
	if err != nil {
		return nil, err
	}
	defer j.http.CloseIdleConnections()
	return j.run(ctx)
}

// Report tells the cluster at url which phase the boot of this machine is in, in
// one word, and a text for the operators. One try, with a deadline, and another
// one where the segment says that machines are booted now.
func Report(ctx context.Context, url, mac, phase, text string) error {
	m, err := ParseMAC(mac)
	if err != nil {
		return fmt.Errorf("report the phase %s: %w", phase, err)
	}
	body, err := json.Marshal(progress{m, printable(phase, maxPhase), printable(text, maxText)})
	if err != nil {
		return fmt.Errorf("report the phase %s: %w", phase, err)
	}
	client := newClient()
	defer client.CloseIdleConnections()
	status, reply, err := post(ctx, client, url+PathProgress, body)
	if err != nil {
		if now, notFound := find(ctx, m); notFound == nil && now != url {
			status, reply, err = post(ctx, client, now+PathProgress, body)
		}
	}
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("HTTP status %d: %s", status, printable(string(reply), maxText))
	}
	if err != nil {
		return fmt.Errorf("report the phase %s: %w", phase, err)
	}
	return nil
}

// joiner is one machine that asks.
type joiner struct {
	url   string
	mac   MAC
	boot  string
	key   hpke.PrivateKey
	say   func(string)
	said  string
	http  *http.Client
	find  func(context.Context, MAC) (url string, err error)
	pause func(context.Context, time.Duration) error
}

func newJoiner(dir, url, mac, boot string, say func(string)) (*joiner, error) {
	m, err := ParseMAC(mac)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	key, err := bootKey(dir)
	if err != nil {
		return nil, fmt.Errorf("join: the key of this boot: %w", err)
	}
	return &joiner{url: url, mac: m, boot: boot, key: key, say: say, http: newClient(), find: find, pause: sleep}, nil
}

// newClient talks to the very server it is told, and to no other.
func newClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: dialTime}).DialContext, MaxIdleConns: 1, IdleConnTimeout: tryTimeout},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       tryTimeout,
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func (j *joiner) run(ctx context.Context) ([]byte, error) {
	body, err := json.Marshal(request{MAC: j.mac, Key: j.key.PublicKey().Bytes(), Boot: j.boot})
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		file, why, lost, err := j.try(ctx, body)
		if err != nil || file != nil {
			return file, err
		}
		if why != j.said {
			j.said = why
			j.say(why)
		}
		if lost && j.moved(ctx) {
			pause = firstPause
		}
		// Machines that were switched on together need not ask together.
		if err := j.pause(ctx, pause/2+rand.N(pause/2)); err != nil {
			return nil, fmt.Errorf("join: %s: %w", why, err)
		}
	}
}

// moved looks who boots machines now, and reports whether that is another one than
// was asked so far. No answer is no news: the next try says why.
func (j *joiner) moved(ctx context.Context) bool {
	url, err := j.find(ctx, j.mac)
	if err != nil || url == j.url {
		return false
	}
	j.say(fmt.Sprintf("the cluster boots machines at %s now, no more at %s; asks there", url, j.url))
	j.url = url
	return true
}

// try asks once. Without a file and without an error, why is the reason to ask
// again; lost says that no cluster answered.
func (j *joiner) try(ctx context.Context, body []byte) (file []byte, why string, lost bool, err error) {
	_, reply, err := post(ctx, j.http, j.url+PathAdmit, body)
	if err != nil {
		return nil, fmt.Sprintf("the cluster does not answer at %s: %v; tries again", j.url, err), true, nil
	}
	a, err := parseAnswer(reply)
	if err != nil {
		return nil, fmt.Sprintf("what answers at %s is no cluster: %v; tries again", j.url, err), true, nil
	}
	switch a.State {
	case stateDenied:
		return nil, "", false, fmt.Errorf("join: %w: %s", ErrDenied, a.Why)
	case stateAgain:
		return nil, "", false, fmt.Errorf("join: %w: %s", ErrBootAgain, a.Why)
	case stateWait:
		return nil, a.Why, false, nil
	}
	file, err = open(j.key, j.mac, j.boot, a.Sealed)
	if err == nil {
		_, err = config.ParseJoin("the credential", string(file))
	}
	if err != nil {
		return nil, fmt.Sprintf("the answer from %s is for another machine: %v; tries again", j.url, err), false, nil
	}
	return file, "", false, nil
}

// post makes one bounded request with a deadline.
func post(ctx context.Context, client *http.Client, url string, body []byte) (status int, reply []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	reply, err = io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	if cerr := res.Body.Close(); err == nil {
		err = cerr
	}
	if err == nil && len(reply) > maxReply {
		err = fmt.Errorf("an answer of more than %d bytes", maxReply)
	}
	return res.StatusCode, reply, err
}
