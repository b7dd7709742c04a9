package sys

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	filteredEnv = "SSI_TEST_FILTERED"
	caughtNr    = 0x5500
)

// filtered is the program that has a filter: it sends the listener to descriptor 3
// and then makes the call once for each line it reads, and prints the result.
func filtered(t *testing.T) {
	fd, err := InstallFilter([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: caughtNr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := WakeOnSameCPU(fd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(3, []byte{1}, unix.UnixRights(fd), nil, 0); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		r, _, e := unix.Syscall6(caughtNr, 1, 2, 3, 4, 5, 6)
		fmt.Println(int(r), int(e))
	}
	os.Exit(0)
}

// startFiltered returns the listener, and what makes a call and gives its result.
func startFiltered(t *testing.T) (listener int, call func() <-chan string) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "theirs")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), filteredEnv+"=1")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	_ = theirs.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("%d messages, %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(pair[0])
	t.Cleanup(func() { _ = unix.Close(fds[0]) })
	lines := bufio.NewReader(out)
	return fds[0], func() <-chan string {
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Error(err)
		}
		c := make(chan string, 1)
		go func() {
			s, _ := lines.ReadString('\n')
			c <- strings.TrimSpace(s)
		}()
		return c
	}
}

// receive is the next call; a signal may have taken back what was announced.
func receive(t *testing.T, fd int) *Notification {
	t.Helper()
	for {
		n := new(Notification)
		err := ReceiveNotification(fd, n)
		if err == nil {
			return n
		}
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOENT) {
			t.Fatal(err)
		}
	}
}

func TestNotification(t *testing.T) {
	needRoot(t)
	if os.Getenv(filteredEnv) != "" {
		filtered(t)
	}
	fd, call := startFiltered(t)
	result := call()

	// A call that cannot be written down is not lost: it comes again.
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err = unix.EINTR
		for errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			err = ReceiveNotification(fd, NotificationAt(page))
		}
		if !errors.Is(err, unix.EFAULT) {
			t.Fatalf("received into memory that cannot be written to: %v", err)
		}
	}
	if err := unix.Mprotect(page, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		t.Fatal(err)
	}
	n := receive(t, fd)
	if n.Nr != caughtNr || n.Arch != unix.AUDIT_ARCH_X86_64 || n.Args != [6]uint64{1, 2, 3, 4, 5, 6} || n.ID == 0 || n.TID == 0 {
		t.Errorf("%+v", n)
	}
	if err := NotificationValid(fd, n.ID); err != nil {
		t.Error(err)
	}
	if err := AnswerNotification(fd, n.ID, 42, 0); err != nil {
		t.Error(err)
	}
	if s := <-result; s != "42 0" {
		t.Errorf("value: %q", s)
	}
	if err := NotificationValid(fd, n.ID); !errors.Is(err, unix.ENOENT) {
		t.Errorf("an answered call: %v", err)
	}
	if err := AnswerNotification(fd, n.ID, 43, 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a second answer: %v", err)
	}

	result = call()
	if err := AnswerNotification(fd, receive(t, fd).ID, 42, unix.EXDEV); err != nil {
		t.Error(err)
	}
	if s, want := <-result, fmt.Sprint("-1 ", int(unix.EXDEV)); s != want {
		t.Errorf("error: %q, want %q", s, want)
	}
	result = call()
	if err := ContinueNotification(fd, receive(t, fd).ID); err != nil {
		t.Error(err)
	}
	if s, want := <-result, fmt.Sprint("-1 ", int(unix.ENOSYS)); s != want {
		t.Errorf("continue: %q, want %q", s, want)
	}
	result = call()
	n = receive(t, fd)
	if err := AnswerWithFile(fd, n.ID, -1, false); !errors.Is(err, unix.EBADF) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := AnswerWithFile(fd, n.ID, 0, true); err != nil {
		t.Error(err)
	}
	if v, err := strconv.Atoi(strings.TrimSuffix(<-result, " 0")); err != nil || v < 3 {
		t.Errorf("file: %d, %v", v, err)
	}
}

func TestInstallFilterRefuses(t *testing.T) {
	for _, n := range []int{0, unix.BPF_MAXINSNS + 1} {
		if _, err := InstallFilter(make([]unix.SockFilter, n)); !errors.Is(err, unix.EINVAL) {
			t.Errorf("a filter of %d instructions: %v", n, err)
		}
	}
}

func TestWritableMapping(t *testing.T) {
	m, err := unix.Mmap(-1, 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mprotect(m[4096:8192], unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	base := uint64(uintptr(unsafe.Pointer(&m[0])))
	if end, err := WritableMapping(int(f.Fd()), base+100); err != nil || end != base+4096 {
		t.Errorf("%#x, %v, want %#x", end, err, base+4096)
	}
	for name, addr := range map[string]uint64{"read only": base + 4096, "nothing": 8, "the end of memory": 1<<64 - 1} {
		if _, err := WritableMapping(int(f.Fd()), addr); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
