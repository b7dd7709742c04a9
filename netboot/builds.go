package netboot

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	maxBuilds = 16               // hardware classes whose boot files are asked for at a time
	madeFor   = 10 * time.Minute // boot files that were made are not looked at again
)

// errManyBuilds tells that no more boot files can be asked for.
var errManyBuilds = errors.New("too many boot files are being made")

// builds has boot files made, those of one hardware class after the other. What it
// began goes on when the term that asked for it ends: init may come back at once,
// and it is a minute of a slow processor.
type builds struct {
	make  func(ctx context.Context, class string) error
	queue chan *build
	mu    sync.Mutex // a leaf
	jobs  map[string]*build
	made  time.Time // when those for all machines were
}

// build is one of them.
type build struct {
	class string
	done  chan struct{}
	err   error // once done is closed
}

func newBuilds(make_ func(ctx context.Context, class string) error) *builds {
	return &builds{make: make_, queue: make(chan *build, maxBuilds), jobs: map[string]*build{}}
}

// run makes what is asked for until ctx ends.
func (b *builds) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-b.queue:
			job.err = b.make(ctx, job.class)
			b.mu.Lock()
			delete(b.jobs, job.class)
			if job.err == nil && job.class == "" {
				b.made = time.Now()
			}
			b.mu.Unlock()
			close(job.done)
		}
	}
}

// ask waits until the boot files of a class are made, or ctx ends. Those for all
// machines are not looked at again if that was just done.
func (b *builds) ask(ctx context.Context, class string) error {
	job, err := b.job(class)
	if err != nil || job == nil {
		return err
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-job.done:
		return job.err
	}
}

func (b *builds) job(class string) (*build, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if class == "" && !b.made.IsZero() && time.Since(b.made) < madeFor {
		return nil, nil
	}
	job := b.jobs[class]
	if job != nil {
		return job, nil
	}
	job = &build{class: class, done: make(chan struct{})}
	select {
	case b.queue <- job:
		b.jobs[class] = job
		return job, nil
	default:
		return nil, errManyBuilds
	}
}

// forget has the boot files for all machines looked at again.
func (b *builds) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made = time.Time{}
}
