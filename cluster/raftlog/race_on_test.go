//go:build race

package raftlog

// slow says that the race detector makes everything about ten times slower.
const slow = true
