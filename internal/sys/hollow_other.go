//go:build !amd64

package sys

// Hollow is the executable file of a hollow process; this processor has none yet.
func Hollow() []byte { return nil }
