package kmod

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const testUUID = "00112233-4455-6677-8899-aabbccddeeff"

// image is size bytes with text at offsets.
func image(size int, at map[int]string) []byte {
	b := make([]byte, size)
	for off, s := range at {
		copy(b[off:], s)
	}
	return b
}

func uuidBytes() string {
	var b []byte
	for i := range 16 {
		b = append(b, byte(i*0x11))
	}
	return string(b)
}

func le32(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }

func images() map[string][]byte {
	const super = 64 << 10
	raid := le32(raidMagic)
	extAt := func(more map[int]string) map[int]string {
		more[1024+0x38], more[1024+0x68], more[1024+0x78] = "\x53\xef", uuidBytes(), "root"
		return more
	}
	boot := map[int]string{11: "\x00\x02\x04", 16: "\x02", 0x43: "\x78\x56\x34\x12", 0x47: "EFI        ", 0x52: "FAT32   ", 510: "\x55\xaa"}
	return map[string][]byte{
		"ext2":              image(1<<20, extAt(map[int]string{})),
		"ext3":              image(1<<20, extAt(map[int]string{1024 + 0x5c: "\x04", 1024 + 0x60: "\x02"})),
		"ext4":              image(1<<20, extAt(map[int]string{1024 + 0x5c: "\x04", 1024 + 0x60: "\x42"})),
		"xfs":               image(1<<20, map[int]string{0: "XFSB", 32: uuidBytes(), 108: "root"}),
		"btrfs":             image(1<<20, map[int]string{super + 0x40: "_BHRfS_M", super + 0x20: uuidBytes(), super + 0x12b: "root"}),
		"swap":              image(1<<20, map[int]string{4086: "SWAPSPACE2", 0x40c: uuidBytes(), 0x41c: "root"}),
		"vfat":              image(1<<20, boot),
		"crypto_LUKS":       image(1<<20, map[int]string{0: "LUKS\xba\xbe\x00\x02", 168: testUUID}),
		"linux_raid_member": image(1<<20, extAt(map[int]string{1<<20 - 8<<10: raid})),
	}
}

func TestProbeFS(t *testing.T) {
	for want, b := range images() {
		got, err := ProbeFS(bytes.NewReader(b), int64(len(b)))
		expect := FS{want, testUUID, "root"}
		switch want {
		case "vfat":
			expect = FS{want, "1234-5678", "EFI"}
		case "crypto_LUKS":
			expect.Label = ""
		case "linux_raid_member":
			expect = FS{Type: want}
		}
		if err != nil || got != expect {
			t.Errorf("%s: %+v, %v", want, got, err)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "zeroes": make([]byte, 1<<20), "short": []byte("XFS"),
		"partition table": image(1<<20, map[int]string{510: "\x55\xaa"}),
	} {
		if got, err := ProbeFS(bytes.NewReader(b), int64(len(b))); err != nil || got != (FS{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// What the real programs make is what blkid says.
func TestProbeReal(t *testing.T) {
	blkid, err := exec.LookPath("blkid")
	if err != nil {
		t.Skip("blkid is missing: apt-get install util-linux")
	}
	for _, mkfs := range []string{"mkfs.ext2 -q -L root", "mkfs.ext3 -q", "mkfs.ext4 -q -L root", "mkfs.xfs -q -L root", "mkfs.btrfs -q -L root", "mkswap -L root", "mkfs.vfat -n ROOT"} {
		args := strings.Fields(mkfs)
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("%s is missing: not tried", args[0])
			continue
		}
		size := int64(16 << 20)
		if strings.Contains(mkfs, "xfs") || strings.Contains(mkfs, "btrfs") {
			size = 320 << 20 // sparse
		}
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(args[0], append(args[1:], file)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", mkfs, err, out)
			continue
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ProbeFS(f, size)
		_ = f.Close()
		if err != nil {
			t.Errorf("%s: %v", mkfs, err)
		}
		for tag, value := range map[string]string{"TYPE": got.Type, "UUID": got.UUID, "LABEL": got.Label} {
			out, _ := exec.Command(blkid, "-p", "-o", "value", "-s", tag, file).Output()
			if want := strings.TrimSpace(string(out)); value != want {
				t.Errorf("%s: %s is %q, blkid says %q", mkfs, tag, value, want)
			}
		}
	}
}

func FuzzProbeFS(f *testing.F) {
	for _, b := range images() {
		f.Add(b[:5<<10], int64(len(b)))
	}
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if fs, err := ProbeFS(bytes.NewReader(b), size); err == nil && escape(fs.Label) != "" && unescape(escape(fs.Label)) != fs.Label {
			t.Errorf("label %q comes back as %q", fs.Label, unescape(escape(fs.Label)))
		}
	})
}

// disks makes disks of images in a sys and dev of its own.
func disks(t *testing.T) Disks {
	t.Helper()
	return Disks{Sys: t.TempDir(), Dev: t.TempDir()}
}

func addDisk(t *testing.T, d Disks, name string, minor int, content []byte, uevent string) {
	t.Helper()
	link := filepath.Join(d.Sys, "class/block", name)
	number := strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyz")
	dir := filepath.Join(d.Sys, "devices", strings.TrimSuffix(name, number), name)
	if number == "" {
		dir = filepath.Dir(dir)
	}
	for _, dir := range []string{dir, filepath.Dir(link), filepath.Join(dir, "queue")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		filepath.Join(d.Dev, name):                     string(content),
		filepath.Join(dir, "uevent"):                   fmt.Sprintf("MAJOR=8\nMINOR=%d\nDEVNAME=%s\n%s", minor, name, uevent),
		filepath.Join(dir, "partition"):                number,
		filepath.Join(dir, "queue/logical_block_size"): "512\n",
		filepath.Join(dir, "size"):                     fmt.Sprintln(len(content) / 512),
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
}

func TestDisks(t *testing.T) {
	d, b := disks(t), images()
	addDisk(t, d, "sda", 0, make([]byte, 1<<20), "DEVTYPE=disk\n")
	addDisk(t, d, "sda1", 1, b["ext4"], "DEVTYPE=partition\nPARTUUID=AB-01\nPARTNAME=my disk\n")
	addDisk(t, d, "sdb", 16, b["linux_raid_member"], "DEVTYPE=disk\n")
	addDisk(t, d, "sr0", 32, nil, "DEVTYPE=disk\n")
	addDisk(t, d, "sdc", 32, gpt(512, 1<<20), "DEVTYPE=disk\n")
	addDisk(t, d, "sdc2", 34, b["xfs"], "DEVTYPE=partition\nPARTNAME=second\n")
	all, err := d.List()
	if err != nil || len(all) != 5 {
		t.Fatalf("%+v, %v", all, err)
	}
	want := Disk{"sda1", unix.Mkdev(8, 1), 1 << 20, true, "ab-01", "my disk", FS{"ext4", testUUID, "root"}, nil}
	if diff := cmp.Diff(want, all[1]); diff != "" {
		t.Error(diff)
	}
	for spec, name := range map[string]string{
		"UUID=" + testUUID: "sda1", `UUID="` + strings.ToUpper(testUUID) + `"`: "sda1", "LABEL=root": "sda1", "LABEL=ROOT": "", "PARTUUID=" + testUUID: "sdc2", "PARTUUID=ab-01": "sda1",
		"PARTLABEL=my disk": "sda1", "/dev/sdb": "sdb", "/dev/disk/by-uuid/" + testUUID: "sda1", `/dev/disk/by-partlabel/my\x20disk`: "sda1", "/dev/sdd": "",
	} {
		s, err := ParseSpec(spec)
		if err != nil {
			t.Errorf("%s: %v", spec, err)
			continue
		}
		found, ok, err := d.Find(s)
		if err != nil || ok != (name != "") || found.Name != name {
			t.Errorf("%s (%s) is %q, %v", spec, s, found.Name, err)
		}
	}
	for _, bad := range []string{"", "sda1", "UUID=", "uuid=x", "/dev", "/etc/passwd", "/dev/../etc/passwd"} {
		if s, err := ParseSpec(bad); err == nil {
			t.Errorf("%q is %s", bad, s)
		}
	}
}

func TestWait(t *testing.T) {
	d, b := disks(t), images()
	addDisk(t, d, "sda", 0, b["xfs"], "")
	s, err := ParseSpec("LABEL=EFI")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err = d.Wait(ctx, s, nil); err == nil || !strings.Contains(err.Error(), "LABEL=EFI") || !strings.Contains(err.Error(), "the disks are sda (xfs root "+testUUID+")") {
		t.Errorf("disk that does not come: %v", err)
	}
	found := make(chan string)
	go func() {
		disk, err := d.Wait(t.Context(), s, nil)
		found <- fmt.Sprint(disk.Name, " ", err)
	}()
	addDisk(t, d, "vdb", 16, b["vfat"], "")
	if got := <-found; got != "vdb <nil>" {
		t.Error(got)
	}
}

// The links follow the disks; those of disks that went are removed.
func TestLinks(t *testing.T) {
	d, b := disks(t), images()
	l := &Links{d}
	list := func() string {
		all := []string{}
		files, _ := filepath.Glob(filepath.Join(d.Dev, "disk/*/*"))
		for _, f := range files {
			target, _ := os.Readlink(f)
			rel, _ := filepath.Rel(filepath.Join(d.Dev, "disk"), f)
			if _, err := os.Stat(f); err != nil {
				t.Error(err)
			}
			all = append(all, rel+">"+filepath.Base(target))
		}
		return strings.Join(all, " ")
	}
	if err := l.Update(); err != nil || list() != "" {
		t.Fatalf("without disks: %s, %v", list(), err)
	}
	addDisk(t, d, "sda1", 1, b["ext4"], "PARTUUID=ab-01\nPARTNAME=my disk\n")
	addDisk(t, d, "sdb1", 17, b["ext4"], "PARTUUID=cd-01\nPARTNAME=../x\n")
	want := `by-label/root>sda1 by-partlabel/my\x20disk>sda1 by-partuuid/ab-01>sda1 by-partuuid/cd-01>sdb1 by-uuid/` + testUUID + ">sda1"
	for range 2 {
		if err := l.Update(); err != nil || list() != want {
			t.Fatalf("links %s, %v; want %s", list(), err, want)
		}
	}
	if err := os.RemoveAll(filepath.Join(d.Sys, "class/block/sda1")); err != nil {
		t.Fatal(err)
	}
	if err := l.Update(); err != nil || list() != "by-label/root>sdb1 by-partuuid/cd-01>sdb1 by-uuid/"+testUUID+">sdb1" {
		t.Errorf("after a disk went: %s, %v", list(), err)
	}
}

func TestEscape(t *testing.T) {
	for label, want := range map[string]string{
		"root": "root", "my disk": `my\x20disk`, "a/b": `a\x2fb`, "größe": "größe", "..": "", "\xff": "", "": "", `\x20`: `\x5cx20`, strings.Repeat("a", 256): "",
	} {
		if got := escape(label); got != want || want != "" && unescape(got) != label {
			t.Errorf("%q: %q", label, got)
		}
	}
}
