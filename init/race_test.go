//go:build race

package pid1

// raceEnabled: the race detector multiplies the memory of a process.
const raceEnabled = true
