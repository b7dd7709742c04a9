package pid1

import (
	"os"
	"sync"

	"ssi/internal/keeper"
)

// store is the files kept for the other roles, by name.
type store struct {
	mu    sync.Mutex
	files map[string]*os.File
}

// put takes f.
func (s *store) put(name string, f *os.File) keeper.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.files[name]
	if old == nil && len(s.files) >= keeper.MaxFiles {
		_ = f.Close()
		return keeper.TooMany
	}
	if old != nil {
		_ = old.Close()
	}
	s.files[name] = f
	return keeper.Done
}

// with calls f with the descriptor kept under name, which stays open meanwhile.
func (s *store) with(name string, f func(fd int)) keeper.Result {
	s.mu.Lock()
	kept := s.files[name]
	s.mu.Unlock()
	if kept == nil {
		return keeper.NotKept
	}
	raw, err := kept.SyscallConn()
	if err != nil {
		return keeper.NotKept
	}
	if err := raw.Control(func(fd uintptr) { f(int(fd)) }); err != nil { // dropped a moment ago
		return keeper.NotKept
	}
	return keeper.Done
}

// next is the first name after this one in the order of bytes, or "".
func (s *store) next(after string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := ""
	for name := range s.files {
		if name > after && (first == "" || name < first) {
			first = name
		}
	}
	return first
}

func (s *store) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[name]; f != nil {
		_ = f.Close()
		delete(s.files, name)
	}
}

func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.files {
		_ = f.Close()
		delete(s.files, name)
	}
}
