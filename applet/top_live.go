package applet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/api"
	"ssi/internal/id"
)

// runLive shows the screen until a key, a signal or the loss of the terminal
// ends it. One goroutine at a time asks the daemon; this one has the screen.
func (t *top) runLive(ctx context.Context, sigs <-chan os.Signal) (err error) {
	if t.screen, err = openScreen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { // also when something panics: the terminal comes first
		err = errors.Join(err, t.screen.close())
		cancel()
		wg.Wait()
	}()
	window := make(chan os.Signal, 1)
	signal.Notify(window, syscall.SIGWINCH, syscall.SIGCONT)
	defer signal.Stop(window)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTSTP)
	defer signal.Stop(stop)

	results := make(chan topResult, 2) // one list and one action
	listing, acting := false, false
	ask := func() {
		if !listing {
			listing = true
			wg.Go(func() { results <- t.list(ctx) })
		}
	}
	timer := time.NewTimer(t.delay)
	defer timer.Stop()
	ask()
	for !t.quit {
		width, height := t.screen.size()
		if err := t.screen.draw(t.model.screen(width, height, t.prompt.line())); err != nil {
			return fmt.Errorf("write to the terminal: %w", err)
		}
		select {
		case <-sigs:
			return nil
		case <-stop:
			if err := t.suspend(); err != nil {
				return err
			}
		case <-window:
			t.screen.redraw()
		case <-timer.C:
			ask()
		case r := <-results:
			if r.list == nil && r.err == nil { // of an action
				acting = false
				t.model.message = r.note
				ask()
				continue
			}
			listing = false
			timer.Reset(t.delay)
			if r.err != nil {
				t.model.message = r.err.Error()
				continue
			}
			t.model.update(r.list, t.env.Now())
			if t.left--; t.left == 0 {
				return nil
			}
		case k, ok := <-t.screen.keys:
			if !ok {
				return nil // the terminal is gone
			}
			act, err := t.key(k, height)
			if err != nil {
				return err
			}
			if act != nil && acting {
				t.model.message = "the last order is not finished yet"
			} else if act != nil {
				acting = true
				wg.Go(func() { results <- topResult{note: act(ctx)} })
			}
			if k.char == ' ' && t.prompt == nil {
				ask()
			}
		}
	}
	return nil
}

// suspend gives the terminal back and stops this process, as ^Z does.
func (t *top) suspend() error {
	if err := t.screen.leave(); err != nil {
		return err
	}
	// Sent to this very thread, so that it stops before it goes on.
	runtime.LockOSThread()
	err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
	runtime.UnlockOSThread()
	if err != nil {
		return err
	}
	return t.screen.enter()
}

// topPrompt is a question on the screen; done gets the answer.
type topPrompt struct {
	question string
	answer   []rune
	done     func(answer string) func(context.Context) string
}

func (p *topPrompt) line() string {
	if p == nil {
		return ""
	}
	return p.question + string(p.answer) + "_"
}

// key acts on one key; what it returns is to be done beside the screen.
func (t *top) key(k topKeyPress, height int) (func(context.Context) string, error) {
	m := t.model
	if t.prompt != nil {
		return t.promptKey(k), nil
	}
	m.message = ""
	switch k.name {
	case "up":
		m.move(-1)
	case "down":
		m.move(1)
	case "pageup":
		m.move(-height / 2)
	case "pagedown":
		m.move(height / 2)
	case "home":
		m.move(-len(m.rows))
	case "end":
		m.move(len(m.rows))
	case "esc":
		m.filter, m.user, m.node = "", "", 0
	}
	switch k.char {
	case 'q', 'Q', 3:
		t.quit = true
	case 26:
		return nil, t.suspend()
	case 'P':
		m.sort = "cpu"
	case 'M':
		m.sort = "mem"
	case 'T':
		m.sort = "time"
	case 'N':
		m.sort = "pid"
	case 'n':
		m.sort = "node"
	case 'U':
		m.sort = "user"
	case 'R':
		m.reverse = !m.reverse
	case 'i':
		m.idle = !m.idle
	case 'c':
		m.args = !m.args
	case 'h', '?':
		m.message = "q quit  P M T N n U R sort  / u o i filter  c command  k kill  r renice  d delay  Esc all"
	default:
		t.ask(k.char)
	}
	m.arrange()
	return nil, nil
}

// ask opens the prompt of a key.
func (t *top) ask(key rune) {
	m := t.model
	set := func(question string, f func(string)) {
		t.prompt = &topPrompt{question: question, done: func(s string) func(context.Context) string {
			f(s)
			m.arrange()
			return nil
		}}
	}
	switch key {
	case '/':
		set("show only what contains: ", func(s string) { m.filter = s })
	case 'u':
		set("show only the user: ", func(s string) { m.user = s })
	case 'o':
		set("show only the node (number): ", func(s string) {
			n, err := id.ParseNode(s)
			if err != nil && s != "" {
				m.message = err.Error()
			}
			m.node = n
		})
	case 'd':
		set(fmt.Sprintf("seconds between lists [%v]: ", t.delay.Seconds()), func(s string) {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil || !(v >= topMinDelay.Seconds() && v <= topMaxDelay.Seconds()) {
				m.message = fmt.Sprintf("the delay is %v to %v seconds", topMinDelay.Seconds(), topMaxDelay.Seconds())
				return
			}
			t.delay = time.Duration(v * float64(time.Second))
		})
	case 'k':
		t.askTarget("signal", "signal [TERM]: ", func(target api.ProcessTarget, s string) func(context.Context) string {
			if s == "" {
				s = "TERM"
			}
			n, ok := parseSignal(s)
			if !ok {
				m.message = fmt.Sprintf("unknown signal %q", s)
				return nil
			}
			return t.order(api.ProcessSignal, api.SignalProcesses{Targets: []api.ProcessTarget{target}, Signal: n}, "sent "+signalName(n))
		})
	case 'r':
		t.askTarget("renice", "nice value (-20 to 19): ", func(target api.ProcessTarget, s string) func(context.Context) string {
			n, err := strconv.Atoi(s)
			if err != nil || n < -20 || n > 19 {
				m.message = fmt.Sprintf("%q is not a nice value (-20 to 19)", s)
				return nil
			}
			return t.order(api.ProcessRenice, api.ReniceProcesses{Targets: []api.ProcessTarget{target}, Nice: n}, fmt.Sprintf("nice value %d", n))
		})
	}
}

// askTarget asks for a process, by default the selected one, then for what to
// do with it.
func (t *top) askTarget(what, question string, then func(api.ProcessTarget, string) func(context.Context) string) {
	var target api.ProcessTarget
	text := ""
	if p := t.model.current(); p != nil {
		target = api.ProcessTarget{Node: p.Node, PID: p.PID, StartTicks: p.StartTicks}
		text = fmt.Sprintf(" [%d on node %d, %s]", p.PID, p.Node, printable(p.Comm))
	}
	t.prompt = &topPrompt{question: "process ID to " + what + text + ": ", done: func(s string) func(context.Context) string {
		if s = strings.TrimSpace(s); s != "" {
			pids, err := parsePIDs(s)
			if err != nil || len(pids) != 1 {
				t.model.message = fmt.Sprintf("%q is not a process ID", s)
				return nil
			}
			target = api.ProcessTarget{PID: pids[0]}
		}
		if target.PID == 0 {
			return nil
		}
		t.prompt = &topPrompt{question: question, done: func(s string) func(context.Context) string {
			return then(target, strings.TrimSpace(s))
		}}
		return nil
	}}
}

// order is a call to the daemon that ends in a message.
func (t *top) order(method string, req any, done string) func(context.Context) string {
	return func(ctx context.Context) string {
		res, err := Call[api.ProcessResults](ctx, t.env, method, req)
		if err != nil {
			return err.Error()
		}
		for _, r := range res.Results {
			if why := resultText(r); why != "" {
				return fmt.Sprintf("(%d): %s", r.PID, why)
			}
			done = fmt.Sprintf("%s: %d on node %d", done, r.PID, r.Node)
		}
		return done
	}
}

// promptKey edits the answer.
func (t *top) promptKey(k topKeyPress) func(context.Context) string {
	p := t.prompt
	const maxAnswer = 256
	switch {
	case k.name == "esc", k.char == 3:
		t.prompt = nil
	case k.char == '\r' || k.char == '\n':
		t.prompt = nil
		return p.done(string(p.answer))
	case k.char == 127 || k.char == 8:
		p.answer = p.answer[:max(0, len(p.answer)-1)]
	case k.char >= ' ' && len(p.answer) < maxAnswer:
		p.answer = append(p.answer, k.char)
	}
	return nil
}
