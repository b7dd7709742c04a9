package kmod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxDisks is how many disks and partitions are looked at.
	maxDisks = 8192
	// floppyMajor is of drives that are there without a medium, and slow to say so.
	floppyMajor = 2
)

// Disk is a block device with something in it.
type Disk struct {
	Name      string // of the device: sda1, in /dev
	Dev       uint64 // device number, as unix.Mkdev
	Size      int64  // bytes
	Partition bool
	PartUUID  string // of the partition, of GPT or MBR; "" if it is none
	PartLabel string
	FS        FS
	Err       error // why FS or PartUUID could not be read
}

// Disks are those of a machine.
type Disks struct {
	Sys string // "/sys"
	Dev string // "/dev"
}

// List finds all disks and probes them. Empty drives are left out.
func (d Disks) List() ([]Disk, error) {
	entries, err := os.ReadDir(filepath.Join(d.Sys, "class/block"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no block device yet
	}
	if err != nil {
		return nil, fmt.Errorf("look for disks: %w", err)
	}
	var all []Disk
	tables := map[string]partTable{} // by disk
	for _, e := range entries {
		if len(all) >= maxDisks {
			break
		}
		disk, ok := d.describe(e.Name())
		if !ok {
			continue
		}
		disk.FS, disk.Err = d.probe(disk)
		if disk.Partition && disk.PartUUID == "" {
			uuid, err := d.partUUID(e.Name(), tables)
			disk.PartUUID, disk.Err = uuid, errors.Join(disk.Err, err)
		}
		all = append(all, disk)
	}
	return all, nil
}

// partUUID finds it in the table of the disk that the partition is on: kernels
// as old as 6.12 do not tell it.
func (d Disks) partUUID(name string, tables map[string]partTable) (string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Join(d.Sys, "class/block", name))
	if err != nil {
		return "", err
	}
	number, err := readNumber(filepath.Join(dir, "partition"))
	if err != nil {
		return "", err
	}
	parent := filepath.Base(filepath.Dir(dir))
	table, ok := tables[parent]
	if !ok {
		table, err = d.parts(parent)
		tables[parent] = table
	}
	return table.uuid(int(number)), err
}

func (d Disks) parts(name string) (partTable, error) {
	disk, ok := d.describe(name)
	if !ok {
		return partTable{}, fmt.Errorf("%s: the disk of a partition is not there", name)
	}
	sector, err := readNumber(filepath.Join(d.Sys, "class/block", name, "queue/logical_block_size"))
	if err != nil {
		return partTable{}, err
	}
	f, err := os.OpenFile(filepath.Join(d.Dev, disk.Name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return partTable{}, err
	}
	defer f.Close()
	table, err := readParts(f, disk.Size, sector)
	if err != nil {
		return partTable{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return table, nil
}

func readNumber(file string) (int64, error) {
	b, err := readBounded(file, 64)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// describe reads what sysfs knows of a block device.
func (d Disks) describe(name string) (Disk, bool) {
	dir := filepath.Join(d.Sys, "class/block", name)
	n, err := readNumber(filepath.Join(dir, "size"))
	if err != nil || n <= 0 || n > 1<<53 {
		return Disk{}, false
	}
	b, err := readBounded(filepath.Join(dir, "uevent"), maxEvent)
	if err != nil {
		return Disk{}, false
	}
	disk := Disk{Name: name, Size: n * 512}
	var major, minor uint64
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch key {
		case "MAJOR":
			major, _ = strconv.ParseUint(value, 10, 32)
		case "MINOR":
			minor, _ = strconv.ParseUint(value, 10, 32)
		case "DEVNAME":
			disk.Name = value
		case "DEVTYPE":
			disk.Partition = value == "partition"
		case "PARTUUID": // of newer kernels
			disk.PartUUID = strings.ToLower(value)
		case "PARTNAME":
			disk.PartLabel = value
		}
	}
	disk.Dev = unix.Mkdev(uint32(major), uint32(minor))
	// The kernel's name is a path below /dev, mostly without a slash.
	return disk, path.Clean("/"+disk.Name) == "/"+disk.Name && major > 0 && major != floppyMajor
}

func (d Disks) probe(disk Disk) (FS, error) {
	// NONBLOCK opens a drive without a medium without waiting for one.
	f, err := os.OpenFile(filepath.Join(d.Dev, disk.Name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return FS{}, err
	}
	defer f.Close()
	fs, err := ProbeFS(f, disk.Size)
	if err != nil {
		return FS{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return fs, nil
}

// Spec names a disk as fstab(5) and root= do.
type Spec struct{ tag, value string }

// ParseSpec reads LABEL=, UUID=, PARTUUID=, PARTLABEL= (the value may be in
// quotes), a path like /dev/sda1, or a link like /dev/disk/by-uuid/….
func ParseSpec(s string) (Spec, error) {
	if name, ok := strings.CutPrefix(path.Clean(s), "/dev/"); ok {
		for _, kind := range linkKinds {
			if value, ok := strings.CutPrefix(name, "disk/"+kind.dir+"/"); ok {
				return Spec{kind.tag, unescape(value)}.folded(), nil
			}
		}
		return Spec{"", name}, nil
	}
	tag, value, ok := strings.Cut(s, "=")
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	for _, kind := range linkKinds {
		if ok && tag == kind.tag && value != "" {
			return Spec{tag, value}.folded(), nil
		}
	}
	return Spec{}, fmt.Errorf("%q names no disk: use /dev/NAME, LABEL=, UUID=, PARTUUID= or PARTLABEL=", s)
}

// folded takes the case away where it means nothing.
func (s Spec) folded() Spec {
	if strings.HasSuffix(s.tag, "UUID") {
		s.value = strings.ToLower(s.value)
	}
	return s
}

// String is the disk's name as ParseSpec reads it.
func (s Spec) String() string {
	if s.tag == "" {
		return "/dev/" + s.value
	}
	return s.tag + "=" + s.value
}

// Matches reports whether a disk is the one. A member of a RAID has no file
// system of its own.
func (s Spec) Matches(d Disk) bool {
	if s.tag == "" {
		return d.Name == s.value
	}
	for _, kind := range linkKinds {
		if kind.tag == s.tag {
			return Spec{s.tag, kind.value(d)}.folded().value == s.value
		}
	}
	return false
}

// Find is the first disk, in the order of names, that a Spec names.
func (d Disks) Find(s Spec) (Disk, bool, error) {
	all, err := d.List()
	if i := slices.IndexFunc(all, s.Matches); i >= 0 {
		return all[i], true, nil
	}
	return Disk{}, false, err
}

// poll is how often Wait looks without an event: a disk may be there before its
// contents can be read.
const poll = 500 * time.Millisecond

// Wait waits until a Spec names a disk. The error, when ctx ends first, lists
// the disks that there are. Events may be nil, and must not be read elsewhere
// meanwhile.
func (d Disks) Wait(ctx context.Context, s Spec, events Source) (Disk, error) {
	var found Disk
	err := WaitFor(ctx, events, func() (ok bool, err error) {
		found, ok, err = d.Find(s)
		return ok, err
	})
	if err == nil {
		return found, nil
	}
	all, _ := d.List()
	var names []string
	for _, disk := range all {
		text := disk.Name
		if disk.FS.Type != "" {
			text += " (" + strings.TrimSpace(disk.FS.Type+" "+disk.FS.Label+" "+disk.FS.UUID) + ")"
		}
		names = append(names, text)
	}
	if len(names) > 32 {
		names = append(names[:32], "…")
	}
	list := "there is no disk at all: is its driver missing?"
	if len(names) > 0 {
		list = "the disks are " + strings.Join(names, ", ")
	}
	return Disk{}, fmt.Errorf("wait for the disk %s: %w; %s", s, err, list)
}

// WaitFor waits until ready says true or an error: it asks at once, after each
// kernel event, and twice a second. Events may be nil.
func WaitFor(ctx context.Context, events Source, ready func() (bool, error)) error {
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		step, cancel := context.WithTimeout(ctx, poll)
		if events == nil {
			<-step.Done()
		} else if _, err := events.Next(step); err != nil && step.Err() == nil && !errors.Is(err, errOverflow) {
			cancel()
			return err
		}
		cancel()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
