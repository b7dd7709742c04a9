package loader

import (
	"net/netip"
	"strings"
	"testing"
)

// kernelArgs takes a command line apart as next_arg in lib/cmdline.c does.
func kernelArgs(s string) Cmdline {
	var c Cmdline
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		quoted, end, equals := false, len(s), -1
		for i := range len(s) {
			if s[i] == ' ' && !quoted {
				end = i
				break
			}
			if s[i] == '"' {
				quoted = !quoted
			}
			if s[i] == '=' && equals < 0 {
				equals = i
			}
		}
		word := s[:end]
		s = s[end:]
		if equals < 0 {
			c = append(c, Param{Key: word})
		} else {
			c = append(c, Param{word[:equals], strings.Trim(word[equals+1:], `"`)})
		}
	}
	return c
}

func same(a, b Cmdline) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestCmdline(t *testing.T) {
	c := Cmdline{{"console", "tty0"}, {"console", "ttyS0,115200"}, {"quiet", ""}, {"ssi.text", "two words"}, {"ssi.url", "http://[fd00::1]:80/x?a=b"}}
	got, err := c.Render()
	if want := `console=tty0 console=ttyS0,115200 quiet ssi.text="two words" ssi.url=http://[fd00::1]:80/x?a=b`; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if !same(kernelArgs(got), c) {
		t.Errorf("the kernel reads %q", kernelArgs(got))
	}
	for _, p := range []Param{
		{"", "x"}, {"a b", ""}, {"a=b", ""}, {"--", ""}, {"a\n", ""}, {"a", "b\nrdinit=/bin/sh"}, {"a", "b\x00"}, {"a", `b" init=/bin/sh "`},
		{"a", "${net0/ip}"}, {"a", "b || shell"}, {"a", "b && shell"}, {"a", "b  c"}, {"a", " b"}, {"a", "ü"}, {"a", "\tb"},
	} {
		if s, err := (Cmdline{p}).Render(); err == nil {
			t.Errorf("%q passes as %q", p, s)
		}
	}
	if _, err := (Cmdline{{"a", strings.Repeat("x", MaxCmdline)}}).Render(); err == nil {
		t.Error("one that is too long passes")
	}
}

func FuzzCmdline(f *testing.F) {
	f.Add("console", "ttyS0", "a", "b c")
	f.Add("a", "\n", "--", `"`)
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		c := Cmdline{{k1, v1}, {k2, v2}}
		s, err := c.Render()
		if err != nil {
			return
		}
		if !same(kernelArgs(s), c) || strings.ContainsAny(s, "\n\r\x00") || len(s) > MaxCmdline {
			t.Fatalf("%q becomes %q, which the kernel reads as %q", c, s, kernelArgs(s))
		}
		b := Boot{Server: netip.MustParseAddrPort("10.0.0.1:80"), Kernel: "vmlinuz", Initramfs: "initrd.img", Cmdline: c}
		script, err := b.IPXE()
		if err != nil {
			t.Fatal(err)
		}
		plain := b
		plain.Cmdline = nil
		without, err := plain.IPXE()
		if err != nil || strings.Count(string(script), "\n") != strings.Count(string(without), "\n") {
			t.Fatalf("the command line adds a line: %s", script)
		}
	})
}

func TestScripts(t *testing.T) {
	b := Boot{
		Server: netip.MustParseAddrPort("10.1.0.1:80"), Kernel: "vmlinuz", Initramfs: "ssi/initrd.img",
		Cmdline: Cmdline{{"rdinit", "/sbin/ssi"}, {"ssi.x", "two words"}}, Script: "boot.ipxe", BootIF: true,
	}
	s, err := b.IPXE()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"#!ipxe",
		"kernel --timeout 20000 --name vmlinuz http://10.1.0.1:80/vmlinuz?mac=${netX/mac} || goto failed",
		"initrd --timeout 20000 --name initrd.img http://10.1.0.1:80/ssi/initrd.img?mac=${netX/mac} || goto failed",
		`imgargs vmlinuz initrd=initrd.img rdinit=/sbin/ssi ssi.x="two words" BOOTIF=01-${netX/mac:hexhyp} || goto failed`,
		"dhcp || goto again",
		"iseq ${filename} http://10.1.0.1:80/boot.ipxe && goto again ||",
		"chain --timeout 20000 --replace ${filename} || goto again",
		"goto again",
	} {
		if !strings.Contains("\n"+string(s), "\n"+line+"\n") {
			t.Errorf("the script has no line %q:\n%s", line, s)
		}
	}
	c, err := b.PXELINUX()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"DEFAULT ssi", "  KERNEL http://10.1.0.1:80/vmlinuz", "  INITRD http://10.1.0.1:80/ssi/initrd.img", `  APPEND rdinit=/sbin/ssi ssi.x="two words"`, "  SYSAPPEND 2"} {
		if !strings.Contains(string(c), line+"\n") {
			t.Errorf("the configuration has no line %q:\n%s", line, c)
		}
	}
	for _, change := range []func(*Boot){
		func(b *Boot) { b.Kernel = "a\nshell" },
		func(b *Boot) { b.Kernel = "" },
		func(b *Boot) { b.Kernel = "../vmlinuz" },
		func(b *Boot) { b.Initramfs = "a b" },
		func(b *Boot) { b.Script = "a b" },
		func(b *Boot) { b.Initramfs = "${x}" },
		func(b *Boot) { b.Initramfs = "a%20" },
		func(b *Boot) { b.Initramfs = "a?b" },
		func(b *Boot) { b.Initramfs = "a,b" },
		func(b *Boot) { b.Server = netip.MustParseAddrPort("0.0.0.0:80") },
		func(b *Boot) { b.Cmdline = Cmdline{{"a", "b\nshell"}} },
	} {
		bad := b
		change(&bad)
		if s, err := bad.IPXE(); err == nil {
			t.Errorf("iPXE: %+v passes:\n%s", bad, s)
		}
		if s, err := bad.PXELINUX(); err == nil {
			t.Errorf("PXELINUX: %+v passes:\n%s", bad, s)
		}
	}
	b.Server = netip.AddrPort{}
	if c, err := b.PXELINUX(); err != nil || !strings.Contains(string(c), "KERNEL vmlinuz\n") {
		t.Errorf("by TFTP: %s, %v", c, err)
	}
	if _, err := b.IPXE(); err == nil {
		t.Error("iPXE without a server passes")
	}
}
