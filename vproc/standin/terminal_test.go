package standin

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
	"ssi/internal/pty"
)

func TestTerminal(t *testing.T) {
	k := start(t)
	open := func(p proc.Place, background bool, script string) (*os.File, *command, error) {
		master, slave, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = slave.Close() }()
		t.Cleanup(func() { _ = master.Close() })
		s := shell(p, script)
		s.Session, s.Background, s.Dir, s.Env = true, background, "/", []string{"PATH=/usr/bin:/bin"}
		c := &command{kit: k, out: master, in: master}
		c.pid, c.pidfd, err = k.m.Create(t.Context(), s, []*os.File{slave, slave, slave})
		return master, c, err
	}
	master, c, err := open(home(40001, 40001), false, who+"; cut -d' ' -f8 /proc/$$/stat; read x; echo $x; read x")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(c.line()); got != "40001 40000 40001 40000" {
		t.Error(got)
	}
	if got := strings.TrimSpace(c.line()); got != "40001" {
		t.Error("foreground: ", got)
	}
	if _, _, err := open(home(40002, 40002), false, "true"); err == nil {
		t.Error("a session has two terminals")
	}
	_, _ = master.WriteString("\x1a") // ^Z
	if e := c.exit(); !e.Status.Stopped() {
		t.Errorf("%+v", e)
	}
	if err := k.m.Foreground(40000, 40000); err != nil {
		t.Error(err)
	}
	if has, err := pty.ForegroundGroup(master); err != nil || has != 40000 {
		t.Error(has, err)
	}
	if err := k.m.Foreground(40000, 40001); err != nil {
		t.Error(err)
	}
	_ = unix.Kill(-40001, unix.SIGCONT)
	if e := c.exit(); !e.Status.Continued() {
		t.Errorf("%+v", e)
	}
	_, _ = master.WriteString("\x03") // ^C
	if e := c.exit(); e.Status.Signal() != unix.SIGINT {
		t.Errorf("%+v", e)
	}
	_ = master.Close()
	own := proc.Place{PID: 40003, Parent: 40000, ParentGroup: 40000, ParentSession: 40000, Group: 40003, Session: 40003}
	if _, c, err = open(own, false, who+"; cut -d' ' -f8 /proc/$$/stat; read x"); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(c.line()); got != "40003 40000 40003 40003" {
		t.Error(got)
	}
	if got := strings.TrimSpace(c.line()); got != "40003" {
		t.Error("foreground: ", got)
	}
	_ = c.out.Close()
	if e := c.exit(); e.Status.Signal() != unix.SIGHUP && e.Status.ExitStatus() != 1 { // the end of its input may be faster
		t.Errorf("%+v", e)
	}
}
