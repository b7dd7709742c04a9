package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// sendTime is how long a machine may take to read a line.
const sendTime = 30 * time.Second

// Machine is a machine of a network: on or off.
type Machine struct {
	net      *Network
	spec     Spec
	segments []*Segment // of the NICs
	console  *Console

	op   sync.Mutex // held while it goes on
	mu   sync.Mutex
	life *life // the last one; nil if it was never on
}

// Name is the name of the machine.
func (m *Machine) Name() string { return m.spec.Name }

// Spec describes the machine, with everything filled in.
func (m *Machine) Spec() Spec { return m.spec }

// MAC is the address of a NIC, counted from 0.
func (m *Machine) MAC(nic int) net.HardwareAddr { return m.spec.NICs[nic].MAC }

// Console is what the machine says on its serial line.
func (m *Machine) Console() *Console { return m.console }

// file is the path of a file of the machine.
func (m *Machine) file(kind string) string { return filepath.Join(m.net.dir, m.spec.Name+"."+kind) }

// On reports whether the machine is on.
func (m *Machine) On() bool { return m.current().on() }

// PID is the process ID of QEMU while the machine is on, or 0.
func (m *Machine) PID() int {
	l := m.current()
	if !l.on() {
		return 0
	}
	return l.cmd.Process.Pid
}

func (m *Machine) current() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// PowerOn switches the machine on, with the disks as they were left. It is on
// when the monitor answers; what it does then is seen on the console.
func (m *Machine) PowerOn(ctx context.Context) error {
	m.op.Lock()
	defer m.op.Unlock()
	if err := m.powerOn(ctx); err != nil {
		return m.failed("power on", err)
	}
	return nil
}

func (m *Machine) powerOn(ctx context.Context) error {
	if l := m.current(); l != nil {
		if m.console.power() {
			return errors.New("it is on already")
		}
		<-l.done // which follows at once
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	program, err := exec.LookPath(qemuProgram)
	if err != nil {
		return Available(m.spec.Firmware)
	}
	var fw firmware
	if m.spec.Firmware == UEFI {
		if fw, err = findFirmware(); err != nil {
			return err
		}
		if err := fw.keepVars(m.file("vars")); err != nil {
			return fmt.Errorf("variables of the firmware: %w", err)
		}
	}
	if err := m.net.enter(); err != nil {
		return err
	}
	l, err := m.start(program, fw)
	if err != nil {
		m.net.leave()
		return err
	}
	m.mu.Lock()
	m.life = l
	m.mu.Unlock()
	if err := l.monitor.negotiate(ctx); err != nil {
		if ended := l.kill(); ended != nil { // it was faster, and says why
			return fmt.Errorf("%w: %w", err, ended)
		}
		return fmt.Errorf("%w: %s", err, l.said.String())
	}
	return nil
}

func (m *Machine) failed(what string, err error) error {
	return fmt.Errorf("machine %s: %s: %w", m.spec.Name, what, err)
}

// Kill cuts the power: QEMU is killed. What the machine wrote to its disks stays
// written. A machine that is off stays off.
func (m *Machine) Kill() error {
	m.op.Lock()
	defer m.op.Unlock()
	l := m.current()
	if !l.on() {
		return nil
	}
	if err := l.kill(); err != nil {
		return m.failed("cut the power", err)
	}
	return nil
}

// Wait waits until the machine is off and returns why QEMU ended, if that was
// neither its own orderly end nor Kill.
func (m *Machine) Wait(ctx context.Context) error {
	l := m.current()
	if l == nil {
		return nil
	}
	select {
	case <-l.done:
		if l.err != nil {
			return m.failed("QEMU ended", l.err)
		}
		return nil
	case <-ctx.Done():
		return m.failed("wait until it is off", ctx.Err())
	}
}

// Expect is Console().Expect.
func (m *Machine) Expect(ctx context.Context, pattern string) ([]string, error) {
	return m.console.Expect(ctx, pattern)
}

// Send types a line on the console. It waits until the serial line took it,
// which is before the machine reads it.
func (m *Machine) Send(line string) error {
	return m.Type([]byte(line + "\r")) // the key at the end of a line is CR
}

// Type types keys on the console, as Send does.
func (m *Machine) Type(keys []byte) error {
	l := m.current()
	if !l.on() {
		return m.failed("type on the console", ErrOff)
	}
	err := l.serial.SetWriteDeadline(time.Now().Add(sendTime))
	if err == nil {
		_, err = l.serial.Write(keys)
	}
	if err != nil {
		if ended(err) {
			err = ErrOff
		}
		return m.failed("type on the console", err)
	}
	return nil
}

// QMP makes a request of QEMU's monitor and returns its answer (QEMU QMP
// Reference Manual). arguments is encoded as JSON; nil is none.
func (m *Machine) QMP(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	l := m.current()
	if !l.on() {
		return nil, m.failed(command, ErrOff)
	}
	answer, err := l.monitor.call(ctx, command, arguments)
	if err != nil {
		return nil, m.failed(command, err)
	}
	return answer, nil
}

func (m *Machine) do(ctx context.Context, command string, arguments any) error {
	_, err := m.QMP(ctx, command, arguments)
	return err
}

// Event waits for an event of QEMU, such as "POWERDOWN", "RESET" or "SHUTDOWN".
// Events before it are forgotten, those beyond the last 256 too.
func (m *Machine) Event(ctx context.Context, name string) error {
	l := m.current()
	if l == nil {
		return m.failed("wait for "+name, ErrOff)
	}
	if err := l.monitor.await(ctx, name); err != nil {
		return m.failed("wait for "+name, err)
	}
	return nil
}

// SetLink pulls the cable of a NIC, counted from 0, or puts it back: the machine
// sees that its carrier is gone. Segment.SetFault with Cut loses frames without
// that.
func (m *Machine) SetLink(ctx context.Context, nic int, up bool) error {
	return m.do(ctx, "set_link", map[string]any{"name": nicID(nic), "up": up})
}

// Stop halts the machine's CPUs and devices; its clock of QEMU stands still.
func (m *Machine) Stop(ctx context.Context) error { return m.do(ctx, "stop", nil) }

// Cont lets a stopped machine go on.
func (m *Machine) Cont(ctx context.Context) error { return m.do(ctx, "cont", nil) }

// PowerDown presses the power button: the machine may switch itself off.
func (m *Machine) PowerDown(ctx context.Context) error { return m.do(ctx, "system_powerdown", nil) }

// Reset presses the reset button. Without Spec.Reboot it switches off.
func (m *Machine) Reset(ctx context.Context) error { return m.do(ctx, "system_reset", nil) }

// Quit ends QEMU in order, with its disk files complete, and waits. For the
// machine it is a power cut.
func (m *Machine) Quit(ctx context.Context) error {
	if err := m.do(ctx, "quit", nil); err != nil {
		return err
	}
	return m.Wait(ctx)
}
