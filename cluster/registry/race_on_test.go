//go:build race

package registry

// slow says that the race detector makes everything about ten times slower.
const slow = true
