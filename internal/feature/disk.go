package feature

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// minFree is room for the log, two snapshots and what is being written.
	minFree = 256 << 20
	// slowSync is when a voter's disk slows down every write of the cluster.
	slowSync = 20 * time.Millisecond
	syncs    = 9
)

// disk examines where a node keeps its state.
func disk(opts Options) []Result {
	dir := existing(opts.StateDir)
	return []Result{free(dir, opts.StateDir), latency(dir)}
}

// existing is dir or its nearest parent that is there.
func existing(dir string) string {
	for dir != "/" {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func free(dir, want string) Result {
	r := Result{Area: "disk", Name: "space", Required: true}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return outcome(r, "", fmt.Errorf("%s: %w", dir, err), "")
	}
	n := st.Bavail * uint64(st.Bsize)
	var err error
	if n < minFree {
		err = fmt.Errorf("%d MiB free for %s, a node needs %d", n>>20, want, minFree>>20)
	}
	return outcome(r, fmt.Sprintf("%d MiB free for %s", n>>20, want), err, "make room, or set `state_dir` in /etc/ssi/ssi.toml")
}

// latency measures the median of several small synchronous writes.
func latency(dir string) Result {
	r := Result{Area: "disk", Name: "sync", Required: true}
	d, err := measure(dir)
	r = outcome(r, fmt.Sprintf("%v for 4 KiB in %s", d.Round(10*time.Microsecond), dir), err, "make the file system writable, or set `state_dir` in /etc/ssi/ssi.toml")
	if err == nil && d > slowSync {
		r.Level, r.Todo = Warn, "slow for a voter; choose a faster disk, or `capable = false` and enough other nodes"
	}
	return r
}

func measure(dir string) (median time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".ssi-doctor-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	block := make([]byte, 4096)
	var times []time.Duration
	for range syncs {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, fmt.Errorf("fdatasync in %s: %w", dir, err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[syncs/2], nil
}
