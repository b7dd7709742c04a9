package test

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ssi/internal/vm"
	"ssi/internal/vmtest"
	"ssi/netboot/initramfs"
)

// helper is what a login without the cluster starts on a machine: it stops and
// continues the node daemon, whose gate a login in the process space would ask.
const helper = `(setsid sh -c 'while :; do for s in STOP CONT; do if [ -e /run/$s ]; then for p in /proc/[0-9]*; do ` +
	`[ "$(tr "\0" " " <$p/cmdline)" = "ssi node " ] && kill -$s ${p#/proc/}; done; rm /run/$s; fi; done; sleep 0.2; done' </dev/null >/dev/null 2>&1 &)`

// login logs in on the console of the first machine and returns what is said before
// the prompt.
func (m *machines) login() string {
	m.t.Helper()
	m.first.Say(`host1 login: `)
	m.first.Type("root")
	return m.first.Say(`(?s)root\n(.*)# $`)[1]
}

// pairConfig is /etc/ssi/ssi.toml of one of two machines.
const pairConfig = `[machine]
hostname = "host%d"
watchdog = "1m"

[[interface]]
mac = "52:54:00:55:00:%02d"
name = "ic0"
address = ["10.55.0.%d/24"]
role = "interconnect"
`

// newPair starts two machines: the first is Debian on a disk, on whose console root
// logs in without a password; the second has its root in memory and a shell.
func newPair(t *testing.T) (m *machines, second *vmtest.Machine) {
	t.Helper()
	m = &machines{Net: vmtest.New(t, 2), t: t, kernel: vmtest.CloudKernel(t), binary: vmtest.Binary(t)}
	config := func(n int) []byte { return fmt.Appendf(nil, pairConfig, n, n, n) }
	disk := vmtest.DebianDisk(t, m.kernel, func(root string) error {
		return errors.Join(put(m.binary, filepath.Join(root, "sbin/ssi")), vmtest.PrepareRoot(root, map[string]string{
			"etc/fstab": "LABEL=ssi-root / ext4 defaults 0 1\n", "etc/ssi/ssi.toml": string(config(1)),
		}))
	})
	machine := func(n int, line string, c initramfs.Config, disks ...vm.Disk) *vmtest.Machine {
		initrd := filepath.Join(t.TempDir(), "initrd")
		c.Binary, c.Tree, c.Classes, c.Modules = m.binary, m.kernel.Modules, []string{"vm"}, []string{"softdog"}
		if _, err := initramfs.Build(t.Context(), c, initrd); err != nil {
			t.Fatal(err)
		}
		machine := m.Machine(vm.Spec{
			Name: fmt.Sprintf("node%d", n), Memory: 512, Kernel: m.kernel.Image, Initrd: initrd,
			Append: "console=ttyS0 rdinit=/sbin/ssi panic=-1 loglevel=4 no_timer_check " + line,
			NICs:   []vm.NIC{{Segment: "ic", MAC: []byte{0x52, 0x54, 0, 0x55, 0, byte(n)}}}, Disks: disks,
		})
		machine.Start()
		return machine
	}
	m.first = machine(1, "root=LABEL=ssi-root rootfstype=ext4 init=/sbin/ssi", initramfs.Config{}, disk)
	second = machine(2, "ssi.console=shell", initramfs.Config{
		Programs: []initramfs.Program{{Source: "/bin/busybox"}},
		Dirs:     []string{"/etc/ssi", "/root", "/tmp", "/var/lib/ssi", "/usr/bin"},
		Files:    []initramfs.File{{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\n")}, {Path: "/etc/ssi/ssi.toml", Data: config(2)}},
		Links:    []initramfs.Link{{Path: "/bin/sh", Target: "busybox"}, {Path: "/bin/sleep", Target: "busybox"}},
	})
	return m, second
}

// TestMachineConsole: who logs in at the console of a node sees and reaches the
// processes of all nodes, and gets in without them when the daemon does not answer; a
// machine that ends stops what runs on it, and leaves in order.
func TestMachineConsole(t *testing.T) {
	m, second := newPair(t)
	for _, machine := range []*vmtest.Machine{m.first, second} { // what [machine] says
		machine.Say(`watchdog: 1m0s`)
	}
	m.login()
	m.run(m.first, helper)
	m.run(m.first, "ssi cluster init --name vm --node 1 --addr 10.55.0.1:1985")
	m.sees(m.first, 1, "UP")
	second.Say(`host2: press Enter for a shell of root`)
	second.Type("")
	second.Say(`# `)
	token := strings.Fields(m.run(m.first, "ssi cluster token"))[0]
	m.run(second, "echo "+token+" | ssi cluster join --addr 10.55.0.2:1985 10.55.0.1:1985")
	m.sees(m.first, 2, "UP")
	if out := m.run(m.first, "dmesg"); !strings.Contains(out, "ssi[node]: msg=transition") || !strings.Contains(out, "ssi[mount]: ") && !strings.Contains(out, "ssi[spawn]: ") {
		t.Errorf("the kernel's log has no lines of the roles: %s", out)
	}

	m.run(second, "(sleep 98765 </dev/null >/dev/null 2>&1 &)")
	if out := m.run(m.first, "ps ax"); strings.Contains(out, "98765") {
		t.Errorf("a login without the cluster sees it: %s", out)
	}
	m.first.Type("exit")
	if said := m.login(); strings.Contains(said, "this machine only") {
		t.Errorf("a login: %s", said)
	}
	m.until(m.first, "ps ax", "98765")
	pid := regexp.MustCompile(`(\d+) .*sleep 98765`).FindStringSubmatch(m.run(m.first, "ps ax -o pid,args | grep '[s]leep 98765'"))
	if pid == nil {
		t.Fatal("no PID")
	}
	if out := m.run(m.first, "cat /proc/"+pid[1]+"/where; tty; ssi onnode 2 ssi clusternode_num; ssi where_pid $$"); !strings.HasPrefix(out, "2\n/dev/ttyS0\n2\n1") {
		t.Errorf("%s", out)
	}
	m.run(m.first, "kill "+pid[1])
	m.until(m.first, "ps ax | grep -c '[s]leep 98765'", "0")

	// The daemon hangs: whoever repairs it gets in.
	m.run(m.first, "touch /run/STOP; while [ -e /run/STOP ]; do :; done")
	m.first.Type("exit")
	if said := m.login(); !strings.Contains(said, "This login sees the processes of this machine only: the node daemon does not serve") {
		t.Errorf("a login while the daemon hangs: %s", said)
	}
	m.run(m.first, "touch /run/CONT; ps ax")
	m.sees(m.first, 1, "UP")
	m.sees(second, 1, "UP")

	// What runs in the process space is told of the end; what does not listen is
	// killed; the node leaves.
	m.first.Type("exit")
	if said := m.login(); strings.Contains(said, "this machine only") {
		t.Errorf("a login after that: %s", said)
	}
	m.run(m.first, "ls -d /proc/.local")
	m.run(m.first, `(setsid sh -c 'trap "" TERM; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 &)`)
	m.run(m.first, `(setsid sh -c 'trap "ps ax >/root/ended; sync; exit" TERM; touch /run/ready; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 &)`)
	m.run(m.first, "until [ -e /run/ready ]; do :; done")
	m.first.Type("ssi poweroff")
	m.first.Off()
	m.until(second, "ssi cluster history", "orderly shutdown")
	m.sees(second, 1, "DOWN")
	disk := m.first.Spec().Disks[0].Path
	if out, err := exec.Command("debugfs", "-R", "cat /root/ended", disk).Output(); err != nil || !strings.Contains(string(out), "ssi") {
		t.Errorf("a process of the process space was not told of the end: %v, %q", err, out)
	}
	if text := m.first.Console().Text(); strings.Contains(text, "shutdown:") || strings.Contains(text, "Kernel panic") {
		t.Errorf("the end was not clean:\n%s", m.first.Console().Tail(20))
	}
}
