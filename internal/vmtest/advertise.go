package vmtest

import (
	"context"
	"testing"

	"ssi/netboot/ra"
)

// Advertise answers the router solicitations on an interface of this thread's
// network namespace, until the end of the test: without an answer iPXE loses 16
// s each time that it opens the interface.
func Advertise(t testing.TB, iface string) error {
	s, err := ra.Listen(t.Context(), iface)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return nil
}
