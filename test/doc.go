// Package test holds the tests of the whole system: real nodes of a lab, real
// kernels' processes, the real binary. Each file is one aspect of what users
// rely on. They need root.
//
// The tests run one after the other: each has a lab of its own, and the times of
// the fast profile want the processor.
package test
