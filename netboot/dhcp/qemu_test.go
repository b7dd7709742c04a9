package dhcp

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ssi/internal/vmtest"
)

// powerOn starts an emulated machine without a disk on the switch, with the address
// mac(2).
func powerOn(t *testing.T, args ...string) {
	t.Helper()
	vmtest.SkipLater(t)
	qemu := need(t, "qemu-system-x86_64")
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no tap interfaces: %v", err)
	}
	ip(t, "tuntap", "add", "tap0", "mode", "tap")
	ip(t, "link", "set", "tap0", "master", "br0", "up")
	if err := vmtest.Advertise(t, "br0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	args = append([]string{"-nodefaults", "-no-user-config", "-machine", "pc,graphics=off,accel=tcg", "-cpu", "qemu64", "-display", "none", "-vga", "none",
		"-smp", "1", "-m", "256", "-no-reboot", "-device", "virtio-rng-pci", "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-boot", "order=n,strict=on"}, args...)
	c := exec.CommandContext(ctx, qemu, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = c.Wait()
		t.Logf("qemu: %.2000s", out.String())
	})
}

const powerOnTime = 3 * time.Minute // emulated, on a machine that may be busy

// The iPXE of a network card asks, and fetches the script that it was told of, from
// our own pool and by proxy.
func TestBootIPXE(t *testing.T) {
	for mode, want := range map[string]Range{"own pool": {ip4("10.77.0.10"), ip4("10.77.0.10")}, "proxy": {ip4("10.77.0.100"), ip4("10.77.0.120")}} {
		t.Run(mode, func(t *testing.T) {
			w := newWires(t, 2)
			cfg, store := netConfig(nil)
			if mode == "proxy" {
				cfg.Mode, cfg.Subnets, cfg.Store = Proxy, nil, nil
				dnsmasq(t, w, 1)
			}
			l, err := net.Listen("tcp4", "10.77.0.1:80")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			start(t, cfg, nil)
			powerOn(t, "-device", "virtio-net-pci,netdev=n0,mac="+mac(2).String())
			if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(powerOnTime)); err != nil {
				t.Fatal(err)
			}
			c, err := l.Accept()
			if err != nil {
				t.Fatalf("the script is not fetched: %v", err)
			}
			defer c.Close()
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 1000)
			n, err := c.Read(buf)
			if err != nil || !strings.HasPrefix(string(buf[:n]), "GET /boot.ipxe ") {
				t.Errorf("request %.100q, %v", buf[:n], err)
			}
			if from := addrOf(c.RemoteAddr().(*net.TCPAddr).IP); !want.Contains(from) {
				t.Errorf("it has the address %v", from)
			}
			if lease, ok := store.get(ip4("10.77.0.10")); mode == "own pool" && (!ok || lease.MAC != mac(2)) {
				t.Errorf("lease %+v", lease)
			}
		})
	}
}

// ovmf is the firmware of UEFI.
func ovmf(t *testing.T) string {
	for _, path := range []string{"/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("no OVMF.fd on this machine")
	return ""
}

// The PXE of UEFI, without iPXE, asks by TFTP for the loader that it was told of,
// from our own pool and by proxy.
func TestBootUEFI(t *testing.T) {
	firmware := ovmf(t)
	for _, mode := range []string{"own pool", "proxy"} {
		t.Run(mode, func(t *testing.T) {
			w := newWires(t, 2)
			cfg, _ := netConfig(nil)
			if mode == "proxy" {
				cfg.Mode, cfg.Subnets, cfg.Store = Proxy, nil, nil
				dnsmasq(t, w, 1)
			}
			tftp, err := net.ListenPacket("udp4", "10.77.0.1:69")
			if err != nil {
				t.Fatal(err)
			}
			defer tftp.Close()
			start(t, cfg, nil)
			powerOn(t, "-bios", firmware, "-device", "virtio-net-pci,netdev=n0,romfile=,mac="+mac(2).String())
			if err := tftp.SetReadDeadline(time.Now().Add(powerOnTime)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 1000)
			n, _, err := tftp.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) || n < 2 || !bytes.HasPrefix(buf[2:n], []byte("snponly.efi\x00")) {
				t.Errorf("request %.60q, %v", buf[:n], err)
			}
		})
	}
}

// The HTTP boot of UEFI asks for the image that it was told of. Its PXE, which would
// come first, is switched off.
func TestBootUEFIHTTP(t *testing.T) {
	firmware := ovmf(t)
	newWires(t, 2)
	cfg, _ := netConfig(nil)
	l, err := net.Listen("tcp4", "10.77.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start(t, cfg, nil)
	powerOn(t, "-bios", firmware, "-device", "virtio-net-pci,netdev=n0,romfile=,mac="+mac(2).String(),
		"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n")
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(powerOnTime)); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatalf("nothing is fetched: %v", err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	n, err := c.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "HEAD /ssi.efi ") {
		t.Errorf("request %.100q, %v", buf[:n], err)
	}
}
