package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ReportFile is the name of the report in the run directory.
const ReportFile = "boot.json"

// maxReport is how many bytes of a report are read.
const maxReport = 256 << 10

// The stages of a start, and the phase before all others.
const (
	initramfsStage = "initramfs"
	systemStage    = "system"
	kernelPhase    = "kernel"
)

// maxWhy is how many bytes a text about a phase has at most.
const maxWhy = 400

// State is what became of a phase or of the whole start.
type State string

// The states.
const (
	Running   State = "running"
	Waiting   State = "waiting" // running, and Why says for what
	Done      State = "done"
	Skipped   State = "skipped"
	Failed    State = "failed"
	Emergency State = "emergency" // a shell runs on the console; Why says why
)

// Phase is one step of the start.
type Phase struct {
	Name  string        `json:"name"`
	What  string        `json:"what"`
	State State         `json:"state"`
	Start time.Duration `json:"start_ns"` // since the kernel started
	Took  time.Duration `json:"took_ns"`  // so far, when it is not over
	Why   string        `json:"why,omitempty"`
}

// Report is what the file ReportFile says: the progress of the start.
type Report struct {
	Stage  string        `json:"stage"` // initramfsStage or systemStage
	State  State         `json:"state"`
	Why    string        `json:"why,omitempty"`
	Took   time.Duration `json:"took_ns"` // kernel start to the end of the last phase
	Phases []Phase       `json:"phases"`
}

// ReadReport reads the report in a run directory; fs.ErrNotExist says that this
// machine was not started by ssi.
func ReadReport(runDir string) (Report, error) {
	var r Report
	f, err := os.Open(filepath.Join(runDir, ReportFile))
	if err != nil {
		return r, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxReport+1))
	if err == nil && len(b) > maxReport {
		err = errors.New("too long")
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return Report{}, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return r, nil
}

// initramfsPhase begins the names of the phases that were carried out there.
const initramfsPhase = "initramfs/"

// earlier are the phases before those of this role's table: what the kernel took and,
// in another root, what was done in the initramfs.
func (b *boot) earlier(stage string) []Phase {
	r, err := ReadReport(b.o.RunDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Warn("the report of the start has nothing of the initramfs", "op", "boot", "err", err)
	}
	var phases []Phase
	for _, p := range r.Phases {
		switch {
		case p.Name == kernelPhase || strings.HasPrefix(p.Name, initramfsPhase):
		case r.Stage == initramfsStage && stage == systemStage:
			p.Name = initramfsPhase + p.Name
		default: // of a life of this role that crashed
			continue
		}
		phases = append(phases, p)
	}
	if len(phases) == 0 {
		phases = append(phases, Phase{Name: kernelPhase, What: "the kernel, until the role boot", State: Done, Took: sinceKernel()})
	}
	return phases
}

// write replaces the report; readers see the old one or the new one.
func (r Report) write(runDir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(runDir, ReportFile), b, 0o644, false)
}

// replaceFile writes a file anew; durable waits for the disk.
func replaceFile(path string, b []byte, mode os.FileMode, durable bool) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && durable {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// sinceKernel is the time since the kernel started; see clock_gettime(2).
func sinceKernel() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// cut shortens a text to one line of at most maxWhy bytes.
func cut(s string) string {
	b := make([]byte, 0, min(len(s), maxWhy))
	for i := 0; i < len(s); i++ {
		switch {
		case len(b) >= maxWhy-len("…"):
			return string(b) + "…"
		case s[i] == '\n':
			b = append(b, "; "...)
		case s[i] < ' ' || s[i] == 0x7f: // it goes to a terminal
			b = append(b, '?')
		default:
			b = append(b, s[i])
		}
	}
	return string(b)
}
