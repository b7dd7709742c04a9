package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"ssi/internal/errno"
	"ssi/internal/id"
)

// Descriptors that the supervisor hands to a node's first process.
const (
	fdControl = 3 + iota // nodeConfig, then "net", then "go", a line each
	fdStatus             // "ready", or what went wrong; closed by exec
)

// nascent is the supervisor's side of a node between clone and exec.
type nascent struct {
	ctl    *os.File
	status *os.File
	life   *life
}

func (p *nascent) close() { _, _ = p.ctl.Close(), p.status.Close() }

func (p *nascent) tell(word string) error {
	if _, err := p.ctl.WriteString(word + "\n"); err != nil {
		return fmt.Errorf("lab: the node's first process ended: %w", err)
	}
	return nil
}

// expect reads the next line of the node: want, or an error. An empty want is the
// end of the pipe.
func (p *nascent) expect(want string) error {
	var line []byte
	buf := make([]byte, 1)
	for len(line) < 4096 {
		n, err := p.status.Read(buf)
		if n == 0 {
			if errors.Is(err, io.EOF) && len(line) == 0 && want == "" {
				return nil
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errno.New(errno.Timeout, "", 0, "its set-up took too long")
			}
			return errno.New(errno.Other, "", 0, "its first process ended before it was set up; see `ssi lab logs`")
		}
		if buf[0] == '\n' {
			break
		}
		line = append(line, buf[0])
	}
	if string(line) == want {
		return nil
	}
	return errno.New(errno.Other, "", 0, "%s", line)
}

// nodeConfig is what a node's first process is told.
type nodeConfig struct {
	Node     id.Node    `json:"node"`
	Devices  []device   `json:"devices"`
	Commands [][]string `json:"commands"` // to run before PID 1
	Root     string     `json:"root"`     // where the supervisor mounted its root
	Keep     []string   `json:"keep"`     // shared directories
}

func (m *machine) nodeConfig() nodeConfig {
	c := nodeConfig{Node: m.n, Devices: m.s.host.devices, Root: filepath.Join(m.dir(), "root"), Keep: m.s.opts.Share}
	if m.first {
		c.Commands = m.firstCommands()
	}
	return c
}

// becomeNode is the role of a node's first process: it makes the node's mounts
// and becomes its PID 1.
func becomeNode() error {
	unix.CloseOnExec(fdControl)
	unix.CloseOnExec(fdStatus)
	status := os.NewFile(fdStatus, "status")
	err := enterNode(bufio.NewReader(os.NewFile(fdControl, "control")), status)
	// Only an error comes back from exec.
	text := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "lab: ")
	_, _ = status.WriteString(text + "\n")
	return err
}

func enterNode(control *bufio.Reader, status *os.File) error {
	line, err := control.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("lab: control pipe: %w", err)
	}
	var c nodeConfig
	if err := json.Unmarshal(line, &c); err != nil {
		return fmt.Errorf("lab: control pipe: %w", err)
	}
	if err := mountNode(&c); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(Host(c.Node))); err != nil {
		return fmt.Errorf("lab: set the host name: %w", err)
	}
	if err := await(control, "net"); err != nil {
		return err
	}
	if err := configureNode(c.Node); err != nil {
		return err
	}
	for _, args := range c.Commands {
		if err := runFirst(args); err != nil {
			return err
		}
	}
	if _, err := status.WriteString("ready\n"); err != nil {
		return fmt.Errorf("lab: status pipe: %w", err)
	}
	if err := await(control, "go"); err != nil {
		return err
	}
	err = unix.Exec("/sbin/ssi", []string{"ssi", "init"}, os.Environ())
	return fmt.Errorf("lab: run /sbin/ssi init: %w", err)
}

func await(control *bufio.Reader, word string) error {
	line, err := control.ReadString('\n')
	if err == nil && line != word+"\n" {
		err = fmt.Errorf("%q instead of %q", line, word)
	}
	if err != nil {
		return fmt.Errorf("lab: control pipe: %w", err)
	}
	return nil
}

// runFirst runs a command of the first boot; the last line of its output, but for
// the hint where to find help, explains a failure.
func runFirst(args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	_, _ = os.Stdout.Write(out)
	if err == nil {
		return nil
	}
	text := err.Error()
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "Try `") {
			text = line
		}
	}
	return fmt.Errorf("lab: `%s` failed: %s", strings.Join(args[:min(3, len(args))], " "), text)
}
