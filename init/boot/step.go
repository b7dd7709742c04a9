package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

const (
	// graceTime is how long a step may go on after its limit.
	graceTime = 2 * time.Second
	// remindTime is how often a step that runs long is shown.
	remindTime = 10 * time.Second
	// slowTime is from when on a step is shown on a quiet console, too.
	slowTime = 2 * time.Second
	// firstRetry and lastRetry bound the pause before a fatal step is tried again.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// step is one row of the table of the start.
type step struct {
	name  string
	what  string        // for people: what is done
	needs []string      // steps that must not have failed
	fatal bool          // a failure leads to the emergency shell, and to another try
	limit time.Duration // 0: none, it shows its progress
	skip  func() string // why there is nothing to do; "" or nil: there is
	do    func(ctx context.Context, say func(text string)) (result string, err error)
}

// errStop ends the start after this step: the machine is started anew, or
// continues in another root.
var errStop = errors.New("the start ends here")

// runner carries out steps, one after the other.
type runner struct {
	out       io.Writer
	quiet     bool
	now       func() time.Duration // since the kernel started
	save      func(Report)
	emergency func(ctx context.Context, step string, why error) // returns when the shell has ended

	mu     sync.Mutex // say is called by the step's goroutine
	report Report
}

// run carries out the table and reports false if a step ended it.
func (r *runner) run(ctx context.Context, table []step) bool {
	failed := map[string]bool{}
	for _, s := range table {
		switch r.step(ctx, s, failed) {
		case Failed:
			failed[s.name] = true
		case Done, Skipped:
		default:
			return false
		}
		if ctx.Err() != nil {
			return false
		}
	}
	r.finish(Done, "")
	return true
}

func (r *runner) finish(state State, why string) {
	r.mu.Lock()
	r.report.State, r.report.Why, r.report.Took = state, why, r.now()
	r.mu.Unlock()
	r.store()
}

// step carries out one step, again and again if it is fatal; Running says that it
// ended the start.
func (r *runner) step(ctx context.Context, s step, failed map[string]bool) State {
	i := slices.IndexFunc(s.needs, func(need string) bool { return failed[need] })
	if i >= 0 {
		r.begin(s)
		r.end(Failed, fmt.Sprintf("not tried: %s failed", s.needs[i]))
		return Failed
	}
	if s.skip != nil {
		if why := s.skip(); why != "" {
			r.begin(s)
			r.end(Skipped, why)
			return Skipped
		}
	}
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		r.begin(s)
		result, err := r.attempt(ctx, s)
		switch {
		case err == nil:
			r.end(Done, result)
			return Done
		case errors.Is(err, errStop):
			r.end(Done, result)
			return Running
		}
		r.end(Failed, err.Error())
		if !s.fatal {
			return Failed
		}
		r.finish(Emergency, s.name+": "+cut(err.Error()))
		r.emergency(ctx, s.name, err)
		r.finish(Running, "")
		select { // where nobody can use a shell, it ends at once
		case <-time.After(pause):
		case <-ctx.Done():
			return Failed
		}
	}
}

// attempt runs a step within its limit. A step that does not end even then is
// left behind, with its goroutine: it is blocked in the kernel, and ends with
// this process.
func (r *runner) attempt(ctx context.Context, s step) (result string, err error) {
	cancel := func() {}
	if s.limit > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("not done within %s", s.limit))
	}
	defer cancel()
	type outcome struct {
		result string
		err    error
	}
	done := make(chan outcome, 1)
	over := new(bool) // guarded by r.mu
	go func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				o.err = fmt.Errorf("panic: %v at %s", p, debug.Stack())
			}
			done <- o
		}()
		o.result, o.err = s.do(ctx, func(text string) { r.say(text, over) })
	}()
	defer func() {
		r.mu.Lock()
		*over = true
		r.mu.Unlock()
	}()
	remind := time.NewTicker(remindTime)
	defer remind.Stop()
	var grace <-chan time.Time
	deadline := ctx.Done()
	for {
		select {
		case o := <-done:
			if o.err != nil && ctx.Err() != nil && !errors.Is(o.err, errStop) {
				o.err = fmt.Errorf("%w: %w", context.Cause(ctx), o.err)
			}
			return o.result, o.err
		case <-deadline:
			deadline, grace = nil, time.After(graceTime)
		case <-grace:
			return "", fmt.Errorf("%w, and it does not end: the kernel holds it", context.Cause(ctx))
		case <-remind.C:
			r.remind()
		}
	}
}

// begin notes the start of a step.
func (r *runner) begin(s step) {
	r.mu.Lock()
	now := r.now()
	p := Phase{Name: s.name, What: s.what, State: Running, Start: now}
	if n := len(r.report.Phases); n > 0 && r.report.Phases[n-1].Name == s.name { // another try
		r.report.Phases[n-1] = p
	} else {
		r.report.Phases = append(r.report.Phases, p)
	}
	r.report.State = Running
	r.mu.Unlock()
	r.store()
}

// say shows what the step waits for, once for each text.
func (r *runner) say(text string, over *bool) {
	text = cut(text)
	r.mu.Lock()
	p := &r.report.Phases[len(r.report.Phases)-1]
	if *over || p.Why == text {
		r.mu.Unlock()
		return
	}
	p.State, p.Why, p.Took = Waiting, text, r.now()-p.Start
	shown := *p
	r.mu.Unlock()
	r.show(shown)
	r.store()
}

// remind shows a step that runs long.
func (r *runner) remind() {
	r.mu.Lock()
	p := &r.report.Phases[len(r.report.Phases)-1]
	p.Took = r.now() - p.Start
	shown := *p
	r.mu.Unlock()
	r.show(shown)
	r.store()
}

// end notes the end of the step.
func (r *runner) end(state State, why string) {
	r.mu.Lock()
	p := &r.report.Phases[len(r.report.Phases)-1]
	p.State, p.Why, p.Took = state, cut(why), r.now()-p.Start
	shown := *p
	r.report.Took = p.Start + p.Took
	r.mu.Unlock()
	switch {
	case state == Skipped:
	case r.quiet && state == Done && shown.Took < slowTime:
	default:
		r.show(shown)
	}
	r.store()
}

// show prints a phase in one line.
func (r *runner) show(p Phase) {
	text := p.Why
	switch {
	case p.State == Failed:
		text = "FAILED: " + text
	case p.State == Running || p.State == Waiting:
		if text == "" {
			text = p.What
		}
		text += " …"
	case text == "":
		text = p.What
	}
	if p.Took >= 10*time.Millisecond {
		text += fmt.Sprintf(" (%.2f s)", p.Took.Seconds())
	}
	_, _ = fmt.Fprintf(r.out, "[%8.2f] %s: %s\r\n", (p.Start + p.Took).Seconds(), p.Name, text)
}

func (r *runner) store() {
	r.mu.Lock()
	defer r.mu.Unlock() // two writers would use one temporary file
	r.save(r.report)
}
