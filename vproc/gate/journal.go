package gate

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"ssi/internal/sys"
)

// slots is how many calls are handled at a time.
const slots = 1024

// The file is a head and the slots, all numbers little-endian. A slot is a
// notification as the kernel wrote it, the sequence number of the call, and the
// number of the listener. A slot is in use from before the call is received into
// it; it holds a call if the notification's ID is not 0. No slot crosses a page.
const (
	journalMagic = 0x3130676f6c697373 // "ssilog01"
	headSize     = slotSize
	offBoot      = 8  // incarnation
	offNext      = 16 // next sequence number
	offBootID    = 24 // boot_id of the kernel, 16 bytes
	slotSize     = 128
	offSeq       = 80
	offListener  = 88
	journalSize  = headSize + slots*slotSize
)

// journal is the calls that were received and not answered, in a file that
// outlives the daemon. It is meant for a file system in memory.
type journal struct {
	mem         []byte
	incarnation uint64
	free        chan int // slots

	mu sync.Mutex // guards the next sequence number
}

// openJournal maps the file at path. It begins a new one if there is none, if it is
// of another boot of the kernel, or if it is damaged. left are the slots that hold
// calls; they are in use.
func openJournal(path string, log *slog.Logger) (j *journal, left []int, err error) {
	mem, boot, err := mapJournal(path)
	if err != nil {
		return nil, nil, fmt.Errorf("journal of the gate: %w", err)
	}
	j = &journal{mem: mem, free: make(chan int, slots)}
	if why := j.check(boot); why != "" {
		if why != isNew {
			log.Warn("the journal of the gate is begun anew; what was under way is lost", "file", path, "why", why)
		}
		if err := j.begin(boot); err != nil {
			_ = j.close()
			return nil, nil, fmt.Errorf("journal of the gate: %w", err)
		}
	}
	j.incarnation = binary.LittleEndian.Uint64(mem[offBoot:])
	for i := range slots {
		if j.notification(i).ID != 0 {
			left = append(left, i)
		} else {
			j.free <- i
		}
	}
	return j, left, nil
}

// mapJournal returns the file's memory, and the boot that it must be of.
func mapJournal(path string) (mem []byte, boot string, err error) {
	if boot, err = bootID(); err != nil {
		return nil, "", err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = f.Close() }()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, journalSize); err != nil { // a page that is missing later is a SIGBUS
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	mem, err = unix.Mmap(int(f.Fd()), 0, journalSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	return mem, boot, nil
}

// bootID is the kernel's random number of this boot (proc_sys_kernel(5)): IDs of
// notifications mean nothing after it.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	if len(b) < 36 {
		return "", errors.New("boot_id is too short")
	}
	return string(b[20:36]), nil
}

const isNew = "it is new"

// check tells why the journal cannot be gone on with, or "".
func (j *journal) check(boot string) string {
	next := binary.LittleEndian.Uint64(j.mem[offNext:])
	switch {
	case binary.LittleEndian.Uint64(j.mem) == 0:
		return isNew
	case binary.LittleEndian.Uint64(j.mem) != journalMagic:
		return "it is not a journal of this version"
	case string(j.mem[offBootID:offBootID+16]) != boot:
		return "the machine was booted since"
	case binary.LittleEndian.Uint64(j.mem[offBoot:]) == 0 || next == 0:
		return "its head is damaged"
	}
	seen := make(map[uint64]bool)
	for i := range slots {
		if j.notification(i).ID == 0 {
			continue
		}
		seq := j.seq(i)
		if seq == 0 || seq >= next || seen[seq] {
			return fmt.Sprintf("slot %d is damaged", i)
		}
		seen[seq] = true
	}
	return ""
}

// begin makes the journal a new one. The magic is written last.
func (j *journal) begin(boot string) error {
	clear(j.mem)
	copy(j.mem[offBootID:], boot)
	if _, err := rand.Read(j.mem[offBoot : offBoot+8]); err != nil {
		return err
	}
	j.mem[offBoot] |= 1 // not 0
	binary.LittleEndian.PutUint64(j.mem[offNext:], 1)
	binary.LittleEndian.PutUint64(j.mem, journalMagic)
	return nil
}

func (j *journal) slot(i int) []byte { return j.mem[headSize+i*slotSize:][:slotSize] }

func (j *journal) notification(i int) *sys.Notification { return sys.NotificationAt(j.slot(i)) }

// prepare gives the slot i, which holds no call, to the next call of a listener.
func (j *journal) prepare(i int, listener uint64) {
	s := j.slot(i)
	j.mu.Lock()
	next := binary.LittleEndian.Uint64(j.mem[offNext:])
	binary.LittleEndian.PutUint64(j.mem[offNext:], next+1)
	j.mu.Unlock()
	binary.LittleEndian.PutUint64(s[offSeq:], next)
	binary.LittleEndian.PutUint64(s[offListener:], listener)
}

func (j *journal) seq(i int) uint64      { return binary.LittleEndian.Uint64(j.slot(i)[offSeq:]) }
func (j *journal) listener(i int) uint64 { return binary.LittleEndian.Uint64(j.slot(i)[offListener:]) }

// clear forgets the call in slot i, which stays in use.
func (j *journal) clear(i int) { *j.notification(i) = sys.Notification{} }

// release forgets the call in slot i and frees it.
func (j *journal) release(i int) {
	j.clear(i)
	j.free <- i
}

func (j *journal) close() error { return unix.Munmap(j.mem) }
