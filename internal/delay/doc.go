// Package delay holds frames back until they are due, for the networks of
// machines and of the lab.
//
// A Line has no goroutine: Run is called by its user, who waits for it. It has
// one lock, a leaf, under which nothing blocks; its methods may be called from
// any goroutine, Run from one.
//
// Limits: as many frames and bytes as New is told; what comes over is refused.
// It must never change a frame or read it, and never send two of the same time in
// another order than they came.
package delay
