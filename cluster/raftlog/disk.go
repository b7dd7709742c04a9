package raftlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is how files are written; tests make it fail.
type disk struct {
	segment   int64 // size of a segment in bytes, a multiple of blockSize
	reserve   int64 // size of the reserve in bytes
	pwrite    func(f *os.File, b []byte, off int64) error
	fdatasync func(f *os.File) error
	allocate  func(f *os.File, size int64) error
}

func realDisk() disk {
	return disk{
		segment: segmentSize,
		reserve: reserveSize,
		pwrite: func(f *os.File, b []byte, off int64) error {
			_, err := f.WriteAt(b, off)
			return err
		},
		fdatasync: func(f *os.File) error {
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				return os.NewSyscallError("fdatasync", err)
			}
			return nil
		},
		allocate: allocate,
	}
}

// allocate gives an empty file its size and its place on the disk.
func allocate(f *os.File, size int64) error {
	var err error
	for {
		if err = unix.Fallocate(int(f.Fd()), 0, 0, size); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return os.NewSyscallError("fallocate", err)
	}
	zero := make([]byte, 64<<10) // a file system without fallocate
	for off := int64(0); off < size; off += int64(len(zero)) {
		if _, err := f.WriteAt(zero[:min(int64(len(zero)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}

// publish gives a complete and synced file its name.
func publish(tmp, path string) error {
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// lockDir takes the lock of a log. It is released when the file is closed, at
// the latest by the end of the process.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }()
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, _ := io.ReadAll(io.LimitReader(f, 20))
			return nil, fmt.Errorf("raft log %s is used by process %s: %w", dir, pid, unix.EBUSY)
		}
		return nil, fmt.Errorf("raft log %s: flock: %w", dir, err)
	}
	// The PID is for people; a full disk must not keep the log from opening.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d", os.Getpid()), 0)
	}
	return f, nil
}
