package errno

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
)

func TestError(t *testing.T) {
	e := New(NotFound, "registry get", 3, "read %s: %w", "/a", fs.ErrNotExist)
	if got, want := e.Error(), "registry get: node 3: read /a: file does not exist"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	wrapped := fmt.Errorf("start: %w", e)
	if !Is(wrapped, NotFound) || Is(wrapped, Full) || KindOf(wrapped) != NotFound || !errors.Is(wrapped, fs.ErrNotExist) {
		t.Errorf("%v lost its kind or its cause", wrapped)
	}
	if got := (&Error{Kind: Full}).Error(); got != "full" {
		t.Errorf("without a text it says %q", got)
	}
	if KindOf(errors.New("x")) != Other || Is(nil, Other) {
		t.Error("an error that is none of ours has kind Other, and no error has none")
	}
}

// Every kind, and one of a newer version, has a name and an errno that is not 0.
func TestKinds(t *testing.T) {
	seen := map[string]Kind{}
	for k := Other; k <= Stale; k++ {
		if other, ok := seen[k.String()]; ok || k.String() == "" || k.Errno() == 0 {
			t.Errorf("kind %d: name %q (also of %d), errno %d", k, k, other, k.Errno())
		}
		seen[k.String()] = k
	}
	if unknown := Kind(200); unknown.String() != "kind 200" || unknown.Errno() != syscall.EIO {
		t.Errorf("an unknown kind is %q, %v", unknown, unknown.Errno())
	}
}
