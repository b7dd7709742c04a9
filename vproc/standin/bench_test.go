package standin

import (
	"errors"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"ssi/internal/proc"
	"ssi/internal/sys"
)

// BenchmarkCreate is what a process costs from its creation to its end: one that has
// a place, when its stand-ins are there as in a shell's second command; with new
// stand-ins, as in its first; and an ordinary one.
func BenchmarkCreate(b *testing.B) {
	if len(sys.Hollow()) == 0 {
		b.Skip("there are no stand-ins on this processor")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	files := []*os.File{null, null, null}
	spec := func(p proc.Place) *proc.Spec {
		return &proc.Spec{Argv: []string{"/bin/true"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Place: p}
	}
	placed := func(b *testing.B, after func(m *Maker)) {
		exits := make(chan proc.Exit, 1)
		m, err := New(Config{Spawn: children{}, Exited: func(e proc.Exit) { exits <- e }, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { m.Close(); reapAll() }()
		for b.Loop() {
			_, pidfd, err := m.Create(b.Context(), spec(home(40001, 40001)), files)
			if err != nil {
				b.Fatal(err)
			}
			_ = pidfd.Close()
			<-exits
			after(m)
		}
	}
	b.Run("placed", func(b *testing.B) { placed(b, func(*Maker) {}) })
	b.Run("with-stand-ins", func(b *testing.B) {
		placed(b, func(m *Maker) {
			m.Gone(40000)
			_, _ = unix.Wait4(40000, nil, 0, nil)
		})
	})
	b.Run("ordinary", func(b *testing.B) {
		for b.Loop() {
			pid, pidfd, err := children{}.Spawn(b.Context(), spec(proc.Place{}), files)
			if err != nil {
				b.Fatal(err)
			}
			_ = pidfd.Close()
			_, _ = unix.Wait4(int(pid), nil, 0, nil)
		}
	})
}

// reapAll waits for all children of this process, which are about to end.
func reapAll() {
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			return
		}
	}
}
