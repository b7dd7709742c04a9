// Command init is PID 1 of the machines of this package's tests: it loads the
// modules of /modules in order, gives eth0 the address of the kernel parameter
// test.ip, answers UDP echoes and does what it is told on the console.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const sector = 512

func main() {
	if err := boot(); err != nil {
		fmt.Println("INIT FAILED:", err)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	lines := bufio.NewScanner(os.Stdin)
	fmt.Println("INIT READY")
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		if err := do(words[0], words[1:]); err != nil {
			fmt.Printf("FAILED %s: %v\n", words[0], err)
		}
	}
	fmt.Println("INIT: the console ended:", lines.Err())
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func boot() error {
	for dir, kind := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, m := range modules { // sorted
		f, err := os.Open(m)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", m, err)
		}
		_ = f.Close()
	}
	parameters, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	for _, p := range strings.Fields(string(parameters)) {
		if addr, ok := strings.CutPrefix(p, "test.ip="); ok {
			if err := configure("eth0", addr); err != nil {
				return fmt.Errorf("eth0: %w", err)
			}
		}
	}
	c, err := net.ListenPacket("udp4", ":7")
	if err != nil {
		return err
	}
	go echo(c)
	return nil
}

func echo(c net.PacketConn) {
	b := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(b[:n], from)
	}
}

// configure waits for the interface, whose device may still be probed.
func configure(name, addr string) error {
	prefix, err := netip.ParsePrefix(addr)
	if err != nil {
		return err
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err = net.InterfaceByName(name); err == nil {
			break
		}
		if time.Now().After(end) {
			return err
		}
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(prefix.Addr().AsSlice()); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCSIFADDR, r); err != nil {
		return err
	}
	if err := r.SetInet4Addr(net.CIDRMask(prefix.Bits(), 32)); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCSIFNETMASK, r); err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

func do(what string, args []string) error {
	switch {
	case what == "ping" && len(args) == 3:
		return ping(args[0], args[1], args[2])
	case what == "carrier":
		b, err := os.ReadFile("/sys/class/net/eth0/carrier")
		fmt.Printf("CARRIER %s\n", strings.TrimSpace(string(b)))
		return err
	case what == "write" && len(args) == 1:
		f, err := os.OpenFile("/dev/vda", os.O_WRONLY|unix.O_SYNC, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(append([]byte(args[0]), make([]byte, sector-len(args[0]))...))
		fmt.Println("WRITTEN")
		return errors.Join(err, f.Close())
	case what == "read":
		f, err := os.Open("/dev/vda")
		if err != nil {
			return err
		}
		b := make([]byte, sector)
		_, err = f.Read(b)
		fmt.Printf("DISK %s.\n", strings.TrimRight(string(b), "\x00"))
		return errors.Join(err, f.Close())
	case what == "shell":
		return unix.Exec("/bin/busybox", []string{"sh"}, []string{"PATH=/bin", "PS1=# "})
	case what == "reboot":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case what == "poweroff":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	return errors.New("no such command")
}

// ping sends so many echo requests, waits for each answer up to a number of
// milliseconds, and says how many came.
func ping(addr, count, timeout string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	ms, err := strconv.Atoi(timeout)
	if err != nil {
		return err
	}
	c, err := net.Dial("udp4", addr+":7")
	if err != nil {
		return err
	}
	defer c.Close()
	answers := 0
	b := make([]byte, 2048)
	for i := range n {
		if _, err := fmt.Fprintf(c, "echo %d", i); err != nil {
			continue // unreachable: the answer to the one before
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Duration(ms) * time.Millisecond)); err != nil {
			return err
		}
		for {
			k, err := c.Read(b)
			if err != nil {
				break
			}
			if string(b[:k]) == fmt.Sprintf("echo %d", i) {
				answers++
				break
			}
		}
	}
	fmt.Printf("PING %s: %d of %d\n", addr, answers, n)
	return nil
}
