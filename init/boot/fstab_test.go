package boot

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFstab(t *testing.T) {
	list, errs := ParseFstab(`# comment
UUID=1 / ext4 errors=remount-ro 0 1
LABEL=my\040disk	/srv/a\040b/	xfs	noatime,nofail	0	2

/dev/sdb none swap sw,pri=5 0 0
short line
tmpfs relative tmpfs
/dev/sdc /x ext4 defaults 0 many
proc /proc proc
`)
	want := []Mount{
		{"UUID=1", "/", "ext4", []string{"errors=remount-ro"}, 1, 2},
		{"LABEL=my disk", "/srv/a b", "xfs", []string{"noatime", "nofail"}, 2, 3},
		{"/dev/sdb", "none", "swap", []string{"sw", "pri=5"}, 0, 5},
		{"proc", "/proc", "proc", nil, 0, 9},
	}
	if !reflect.DeepEqual(list, want) {
		t.Errorf("%+v\nwant %+v", list, want)
	}
	for i, text := range []string{"/etc/fstab:6: 2 fields", `/etc/fstab:7: "relative" is no absolute path`, `/etc/fstab:8: "many"`} {
		if i >= len(errs) || !strings.HasPrefix(errs[i].Error(), text) {
			t.Errorf("%v, want %s", errs, text)
		}
	}
	if list, errs := ParseFstab(strings.Repeat("a /b c\n", maxMount+1)); len(list) != maxMount || len(errs) != 1 {
		t.Errorf("too many: %d and %v", len(list), errs)
	}
}

func TestWanted(t *testing.T) {
	list, _ := ParseFstab(`a / ext4
b /proc proc
c /mnt ext4 noauto
d none swap
e /srv nfs defaults
f /data ext4 _netdev
g /home ext4 x-systemd.automount
`)
	var got []string
	for _, m := range list {
		if m.wanted() {
			got = append(got, map[bool]string{true: "net:", false: ""}[m.remote()]+m.Dir)
		}
	}
	if want := []string{"net:/srv", "net:/data", "/home"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestOrder(t *testing.T) {
	list, _ := ParseFstab(`/var/lib/x /srv none bind
c /var/lib ext4
b /var ext4
a /usr ext4
/loop1 /loop2 none bind
/loop2 /loop1 none bind
`)
	var got []string
	for _, m := range Order(list) {
		got = append(got, m.Dir)
	}
	if want := []string{"/var", "/var/lib", "/srv", "/usr", "/loop1", "/loop2"}; !slices.Equal(got, want) {
		t.Logf("%v", got)
		if len(got) != len(want) || slices.Index(got, "/var") > slices.Index(got, "/var/lib") || slices.Index(got, "/var/lib") > slices.Index(got, "/srv") {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		options string
		flags   uintptr
		data    string
	}{
		{"defaults", 0, ""},
		{"ro,rw", 0, ""},
		{"user,exec", unix.MS_NOSUID | unix.MS_NODEV, ""},
		{"noatime,errors=remount-ro,x-systemd.automount,nofail,comment=a,size=5%", unix.MS_NOATIME, "errors=remount-ro,size=5%"},
		{"rbind,ro", unix.MS_BIND | unix.MS_REC | unix.MS_RDONLY, ""},
	} {
		if flags, data := Flags(strings.Split(c.options, ",")); flags != c.flags || data != c.data {
			t.Errorf("%s: %#x %q, want %#x %q", c.options, flags, data, c.flags, c.data)
		}
	}
}

func FuzzFstab(f *testing.F) {
	f.Add("UUID=1 / ext4 errors=remount-ro 0 1\n/a\\040b /c none bind,nofail\n")
	f.Add("/a /b none bind\n/b /a none bind\n")
	f.Add("x y")
	f.Fuzz(func(t *testing.T, text string) {
		list, errs := ParseFstab(text)
		if len(list) > maxMount || len(errs) > 12 {
			t.Errorf("%d entries, %d errors", len(list), len(errs))
		}
		if ordered := Order(list); len(ordered) != len(list) {
			t.Errorf("%d of %d entries are left", len(ordered), len(list))
		}
		for _, m := range list {
			Flags(m.Options)
			if m.Type != "swap" && !strings.HasPrefix(m.Dir, "/") {
				t.Errorf("%q is not absolute", m.Dir)
			}
		}
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n")
	f.Fuzz(func(_ *testing.T, text string) {
		for _, m := range parseMountinfo(text) {
			m.writable()
			m.api()
		}
	})
}
