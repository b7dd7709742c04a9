package loader

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ssi/internal/vm"
	"ssi/internal/vmtest"
	"ssi/netboot/httpboot"
)

// A machine boots by iPXE with the script: the server does not have the kernel, and
// the console says so. Then DHCP names another server, which has it.
func TestIPXEBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: machines take long, and -short is set")
	}
	initramfs, err := Bytes(busybox(t, "IPXE BOOTED"), time.Unix(1, 0), InitramfsCheck)
	if err != nil {
		t.Fatal(err)
	}
	n := vmtest.New(t, 1)
	kernel, err := File(vmtest.CloudKernel(t).Image, KernelCheck(BIOS))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := NewTree(map[string]Entry{"vmlinuz": kernel, "initrd.img": initramfs})
	if err != nil {
		t.Fatal(err)
	}
	empty, err := NewTree(nil)
	if err != nil {
		t.Fatal(err)
	}
	accesses := make(chan httpboot.Access, 100)
	ns := lan(t, n)
	serve := func(server netip.AddrPort, files *Tree) {
		script, err := Boot{
			Server: server, Kernel: "vmlinuz", Initramfs: "initrd.img", Script: "boot.ipxe", BootIF: true,
			Cmdline: Cmdline{{"console", "ttyS0"}, {"panic", "-1"}, {"quiet", ""}, {"ssi.text", "two words"}},
		}.IPXE()
		if err != nil {
			t.Fatal(err)
		}
		var shelf Shelf
		shelf.Put(files)
		if err := ns.Do(func() error {
			l, err := httpboot.Listen(server)
			if err != nil {
				return err
			}
			web := httpboot.New(l, httpboot.Config{
				Files: &shelf, Log: func(a httpboot.Access) { accesses <- a },
				Dynamic: func(_ context.Context, r httpboot.Request) (httpboot.Response, bool) {
					return httpboot.Response{Body: script}, r.Path == "boot.ipxe"
				},
			})
			t.Cleanup(func() {
				if err := web.Close(); err != nil {
					t.Error(err)
				}
			})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	serve(netip.MustParseAddrPort("192.0.2.1:80"), empty)
	serve(netip.MustParseAddrPort("192.0.2.1:81"), tree)
	dhcp := startDHCP(t, ns, "--dhcp-boot=http://192.0.2.1:80/boot.ipxe")
	m := n.Machine(vm.Spec{Name: "ipxe", Boot: vm.BootNetwork, Memory: 512, NICs: []vm.NIC{{Segment: "lan"}}})
	m.Start()
	m.Say(`192\.0\.2\.1:80 did not deliver what this machine boots from`)
	m.Say(`trying again in 2 seconds`)
	dhcp() // and for a time there is no DHCP server at all
	m.Say(`trying again in 4 seconds`)
	dhcp = startDHCP(t, ns, "--dhcp-boot=http://192.0.2.1:81/boot.ipxe")
	defer func() { dhcp() }()
	m.Say(`asking http://192\.0\.2\.1:81/boot\.ipxe instead`)
	mac := m.MAC(0).String()
	m.Say(fmt.Sprintf(`IPXE BOOTED initrd=initrd\.img console=ttyS0 panic=-1 quiet ssi\.text="two words" BOOTIF=01-%s`, strings.ReplaceAll(mac, ":", "-")))
	m.Off()
	var kernels int
	for len(accesses) > 0 {
		a := <-accesses
		if a.Path == "/vmlinuz" && a.Status == http.StatusOK {
			kernels++
			if a.MAC.String() != mac || a.Bytes != kernel.Size() {
				t.Errorf("%+v", a)
			}
			t.Logf("kernel by HTTP to iPXE: %.1f MB/s", float64(a.Bytes)/1e6/a.Duration.Seconds())
		}
	}
	if kernels != 1 {
		t.Errorf("the kernel was fetched %d times", kernels)
	}
}

// lan is a namespace on the segment of the machine, for its servers.
func lan(t *testing.T, n *vmtest.Net) *vm.Netns {
	ns := n.Netns("lan", "lan0", "192.0.2.1/24")
	if err := ns.Do(func() error { return vmtest.Advertise(t, "lan0") }); err != nil {
		t.Fatal(err)
	}
	return ns
}

// startDHCP starts a DHCP server on lan0; the function ends it.
func startDHCP(t *testing.T, ns *vm.Netns, boot string) func() {
	dnsmasq, err := exec.LookPath("dnsmasq")
	if err != nil {
		t.Skip("there is no DHCP server for the test: apt install dnsmasq-base")
	}
	cmd := exec.Command(dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=lan0", "--leasefile-ro", "--user=root", "--pid-file=",
		"--dhcp-range=192.0.2.10,192.0.2.20", boot, "--dhcp-option-force=encap:175,176,1b")
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}
}
