package pid1

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ssi/init/boot"
	"ssi/internal/keeper"
)

// maxFailures is how often the role boot, or its emergency shell, may crash before
// PID 1 goes on without it.
const maxFailures = 3

// lateStart is how long after the node the roles start that only people wait for, if
// it does not serve before: a machine with one processor is UP the sooner.
const lateStart = 10 * time.Second

// Service is a role that needs nothing of PID 1 but to be restarted.
type Service struct {
	Name     string
	Args     []string // of the binary
	OOMScore int      // oom_score_adj(5)
}

// starting is the state of a machine before its roles run.
type starting struct {
	role     *role
	status   unix.WaitStatus
	over     bool // the role's last life has ended, with status
	shell    bool // that life was only the emergency shell
	failures int
	newRoot  string // what to execute in the new root, if the role asked
	next     []*role
}

// prepareStart has the role boot run before the others.
func (d *initd) prepareStart() {
	if len(d.o.Boot) == 0 || !d.machine && !d.o.testBoot {
		return
	}
	r := &role{name: "boot", args: d.o.Boot, oomScore: -900, prepare: d.prepareBoot}
	d.starting = &starting{role: r, next: d.roles}
	d.roles = []*role{r}
}

func (d *initd) prepareBoot() ([]*os.File, []string, func(), error) {
	l, theirs, err := newLink(d.log, d.store, d.ring, d.requests, startsMachine)
	if err != nil {
		return nil, nil, nil, err
	}
	return []*os.File{theirs}, []string{keeper.FDEnv + "=3"}, l.close, nil
}

// afterBoot acts on the end of the role boot: it is tried again, or its shell
// follows, or the machine goes on.
func (d *initd) afterBoot() {
	s := d.starting
	s.over = false
	select { // what it asked for just before
	case q := <-d.requests:
		d.requested(q)
	default:
	}
	ok := s.status.Exited() && s.status.ExitStatus() == 0
	switch {
	case ok && s.shell && s.failures < maxFailures: // the shell may have made the new root right
		s.shell, s.role.args = false, d.o.Boot
	case ok && s.shell, !ok && s.failures+1 >= 2*maxFailures:
		d.goOn()
	case ok && s.newRoot != "":
		d.watchdog.close()
		err := switchRoot(boot.NewRoot, s.newRoot)
		s.newRoot = ""
		d.log.Error("the new root cannot be used", "op", "switch root", "err", err)
		d.rescue(fmt.Sprintf("the new root cannot be used: %v", err))
	case ok:
		d.goOn()
	default:
		if s.failures++; s.failures >= maxFailures {
			d.rescue(fmt.Sprintf("the role boot ended %d times: %s", s.failures, describe(s.status)))
		}
	}
}

// rescue makes the next life of the role boot the emergency shell alone.
func (d *initd) rescue(why string) {
	d.starting.shell = true
	d.starting.role.args = append(slices.Clone(d.o.Boot), boot.ArgEmergency, why)
}

// goOn starts the roles and, once the node serves, a login on each console.
func (d *initd) goOn() {
	d.roles = d.starting.next
	d.starting = nil
	late := time.Now().Add(lateStart)
	for _, s := range d.o.Services {
		d.roles = append(d.roles, &role{name: s.Name, args: s.Args, oomScore: s.OOMScore, prepare: nothing, due: late})
	}
	if len(d.o.Getty) == 0 {
		return
	}
	active, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		d.log.Error("no login on the console", "op", "getty", "err", err)
	}
	for _, tty := range boot.Terminals(string(active)) {
		d.roles = append(d.roles, &role{name: "getty " + tty, args: append(slices.Clone(d.o.Getty), tty), prepare: d.prepareKept, ends: true, due: late})
	}
}

// startLate starts the roles that have never run.
func (d *initd) startLate(now time.Time) {
	for _, r := range d.roles {
		if r.pid == 0 && r.started.IsZero() && r.due.After(now) {
			r.due = now
		}
	}
}

// nothing is for roles that need no descriptors.
func nothing() ([]*os.File, []string, func(), error) { return nil, nil, func() {}, nil }

// helper runs the role boot once more, at the end of the machine.
func (d *initd) helper(limit time.Duration, arg string) {
	r := &role{name: "boot " + arg, args: append(slices.Clone(d.o.Boot), arg), oomScore: -900, prepare: nothing}
	d.roles = append(d.roles, r)
	if err := r.start(d.o.Exe, time.Now()); err != nil {
		d.log.Error("role does not start", "op", r.name, "err", err)
		return
	}
	d.tellForked()
	ended := func(bool) bool { return r.pid == 0 }
	if !d.await(limit, ended) {
		d.log.Error("role does not end", "op", r.name, "after", limit)
		r.signal(unix.SIGKILL)
		d.await(killTime, ended)
	}
}
