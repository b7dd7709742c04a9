//go:build !race

package pid1

const raceEnabled = false
