package pid1

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ssi/init/boot"
	"ssi/internal/keeper"
	"ssi/internal/proc"
)

// How long an orderly end waits for each of its steps.
const (
	nodeTime = 10 * time.Second // the node role leaves the cluster
	termTime = 5 * time.Second  // processes end after SIGTERM
	killTime = 2 * time.Second  // processes end after SIGKILL
	syncTime = 10 * time.Second // file systems are written
	saveTime = 5 * time.Second  // what the next start needs is saved
	pingTime = time.Second      // the watchdog is looked at
	endTime  = time.Minute      // swap is read back, file systems are unmounted
)

// shutdown ends everything: the users' processes while all roles still serve them, then
// the node role, which leaves the cluster, and the others.
func (d *initd) shutdown() {
	if d.isInit && !d.endUsers() {
		d.signalUsers(unix.SIGKILL)
	}
	d.node.signal(unix.SIGTERM)
	if !d.await(nodeTime, func(bool) bool { return d.node.pid == 0 }) {
		d.log.Warn("the node role did not end", "op", "shutdown", "after", nodeTime)
		d.node.signal(unix.SIGKILL)
	}
	if d.machine && len(d.o.Boot) > 0 {
		d.helper(saveTime, boot.ArgSave)
	}
	none := func(left bool) bool { return !left }
	if d.isInit { // -1 is every process of the machine, or of the namespace, except this one
		_ = unix.Kill(-1, unix.SIGTERM)
		_ = unix.Kill(-1, unix.SIGCONT)
		if !d.await(termTime, none) {
			_ = unix.Kill(-1, unix.SIGKILL)
		}
	} else {
		d.spawn.signal(unix.SIGTERM)
		d.cgroup.kill()
		if d.mount != nil { // last: until now it answered those that are ended
			d.mount.signal(unix.SIGTERM)
		}
	}
	// With the mount role gone, who reads its file system ends when nobody holds
	// that any more.
	d.store.close()
	if !d.await(killTime, none) && d.isInit {
		d.log.Warn("processes do not end", "op", "shutdown")
	}
	d.cgroup.remove()
	if d.machine && len(d.o.Boot) > 0 {
		d.helper(endTime, boot.ArgEnd)
	}
}

// endUsers ends, by SIGTERM, every process but the roles node, mount and spawn: what
// others do at their end, such as reading /proc or sending a signal, is served by these;
// and a node that has left the cluster kills what others run there. It reports false if
// some do not end in time.
func (d *initd) endUsers() bool {
	d.signalUsers(unix.SIGTERM)
	d.signalUsers(unix.SIGCONT)
	return d.await(termTime, func(bool) bool {
		none := true
		d.users(func(int) bool {
			none = false
			return false
		})
		return none
	})
}

func (d *initd) signalUsers(s unix.Signal) {
	d.users(func(pid int) bool {
		_ = unix.Kill(pid, s)
		return true
	})
}

// users calls f with the PID of every process but this one, the roles node, mount and
// spawn, stand-ins, threads of the kernel and what has ended, until f returns false.
// Where /proc cannot be read there are none.
func (d *initd) users(f func(pid int) bool) {
	dir, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer func() { _ = dir.Close() }()
	for {
		names, err := dir.Readdirnames(256)
		if err != nil { // io.EOF
			return
		}
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil || pid == 1 || pid == d.node.pid || pid == d.spawn.pid || d.mount != nil && pid == d.mount.pid {
				continue
			}
			if _, err := os.Readlink("/proc/" + name + "/exe"); err != nil {
				continue
			}
			// They hear no signal, and end with what they stand for, or after all others.
			if comm, err := os.ReadFile("/proc/" + name + "/comm"); err == nil && string(comm) == proc.StandIn+"\n" {
				continue
			}
			if !f(pid) {
				return
			}
		}
	}
}

// await reaps until done, which is told whether there are children, or until the
// time is over.
func (d *initd) await(limit time.Duration, done func(left bool) bool) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	ping := time.NewTicker(pingTime)
	defer ping.Stop()
	for {
		if done(d.reap()) {
			return true
		}
		d.watchdog.ping(time.Now())
		select {
		case <-d.children:
			if done(d.lookAtChildren()) {
				return true
			}
		case <-d.signals: // another request to end changes nothing
		case <-d.requests:
		case <-ping.C:
		case <-t.C:
			return false
		}
	}
}

// exit is the one way out: the machine, the namespace or this process ends.
func (d *initd) exit() int {
	if !d.isInit {
		return 0
	}
	synced := make(chan struct{})
	go func() { // nobody waits for it beyond syncTime: a dead disk may not keep the machine from ending
		unix.Sync()
		close(synced)
	}()
	if !d.waitFor(synced, syncTime) {
		d.log.Error("file systems are not written", "op", "sync", "after", syncTime)
	}
	if d.machine && d.certain {
		_ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	} else {
		unmount(d.mounts)
	}
	d.watchdog.close()
	err := unix.Reboot(rebootCommand(d.ending))
	if d.ending == keeper.Kexec {
		d.log.Error("no kernel was loaded for kexec: an ordinary reboot follows", "op", d.ending.String(), "err", err)
		err = unix.Reboot(rebootCommand(keeper.Reboot))
	}
	d.log.Error("the kernel refuses to end the machine", "op", d.ending.String(), "err", err)
	if d.machine { // returning would be a kernel panic
		for {
			time.Sleep(time.Hour)
		}
	}
	return 1
}

// waitFor waits for done, at most limit, while the watchdog is fed.
func (d *initd) waitFor(done <-chan struct{}, limit time.Duration) bool {
	end := time.NewTimer(limit)
	defer end.Stop()
	ping := time.NewTicker(pingTime)
	defer ping.Stop()
	for {
		d.watchdog.ping(time.Now())
		select {
		case <-done:
			return true
		case <-ping.C:
		case <-end.C:
			return false
		}
	}
}

func rebootCommand(e keeper.Ending) int {
	switch e {
	case keeper.Halt:
		return unix.LINUX_REBOOT_CMD_HALT
	case keeper.Reboot:
		return unix.LINUX_REBOOT_CMD_RESTART
	case keeper.Kexec:
		return unix.LINUX_REBOOT_CMD_KEXEC
	}
	return unix.LINUX_REBOOT_CMD_POWER_OFF
}
