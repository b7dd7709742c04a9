package vmtest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"ssi/internal/vm"
)

// Machine is a machine of a test. These methods fail the test instead of
// returning errors, and wait for Patience at most; those of vm.Machine behind
// it do not.
type Machine struct {
	*vm.Machine
	t    testing.TB
	runs int
}

// Start switches the machine on.
func (m *Machine) Start() {
	m.t.Helper()
	ctx, cancel := within(m.t)
	defer cancel()
	m.check(m.PowerOn(ctx))
}

// Cut cuts the power.
func (m *Machine) Cut() {
	m.t.Helper()
	m.check(m.Kill())
}

// Off waits until the machine is off.
func (m *Machine) Off() {
	m.t.Helper()
	ctx, cancel := within(m.t)
	defer cancel()
	m.check(m.Wait(ctx))
}

// Say waits until the console matches a regular expression and returns the
// groups; see vm.Console.
func (m *Machine) Say(pattern string) []string {
	m.t.Helper()
	ctx, cancel := within(m.t)
	defer cancel()
	match, err := m.Expect(ctx, pattern)
	m.check(err)
	return match
}

// Type types a line on the console.
func (m *Machine) Type(line string) {
	m.t.Helper()
	m.check(m.Send(line))
}

// Link pulls the cable of a NIC or puts it back.
func (m *Machine) Link(nic int, up bool) {
	m.t.Helper()
	ctx, cancel := within(m.t)
	defer cancel()
	m.check(m.SetLink(ctx, nic, up))
}

// Pause stops the machine.
func (m *Machine) Pause() {
	m.t.Helper()
	ctx, cancel := within(m.t)
	defer cancel()
	m.check(m.Stop(ctx))
}

// Resume lets it go on.
func (m *Machine) Resume() {
	m.t.Helper()
	ctx, cancel := within(m.t)
	defer cancel()
	m.check(m.Cont(ctx))
}

// Run runs a command in the shell that has the console, and returns what it said
// and its exit status. The command is one line; what else is said on the console
// meanwhile is in the output as well, and a later Say does not see it.
func (m *Machine) Run(command string) (output string, status int) {
	m.t.Helper()
	m.runs++
	begin, end := fmt.Sprintf("BEGIN%d", m.runs), fmt.Sprintf("END%d", m.runs)
	// The quotes keep what the terminal echoes from looking like the output.
	m.Type(fmt.Sprintf(`echo %s""; %s; echo ""%s-$?-`, begin, command, end))
	match := m.Say(`(?s)` + begin + `\n(.*?)` + end + `-(\d+)-`)
	status, err := strconv.Atoi(match[2])
	m.check(err)
	return strings.TrimSuffix(match[1], "\n"), status
}

func (m *Machine) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}
