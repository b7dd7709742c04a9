// Package vmtest runs machines in tests: what package vm does, and around it
// what a test needs.
//
// New makes the network of one test. It skips the test, with the reason, where
// machines cannot run, waits until few enough machines run on this computer, and
// ends everything with the test. If the test failed, the consoles, the captures
// of all segments and a summary are kept, and the test's output says where.
// CloudKernel and GenericKernel are Debian's 6.12 kernels, fetched once; Binary is ssi, built
// when it changed; Made keeps what else takes long to make; Net.Netns is a network
// namespace for servers of the test, and Advertise spares firmware a long wait for
// one of them; Net.Clock reads the clock of a machine from outside of it.
//
// Kernel, binaries, locks and artefacts are in the directory that SSI_TEST_CACHE
// names, by default ssi-test in the user's cache directory. Nothing else outside
// of the test's own temporary directory is written to. All of it can be removed
// at any time when no test runs.
//
// # Locks and goroutines
//
// Files in locks/ are locked with flock(2), so the kernel releases them with the
// process: `kernel`, `binary` and `made-NAME` while such a thing is made; `queue`
// while a test takes its places, so that two tests never wait for each other; and
// one `slotN` for each machine that may run. Order: made-NAME, queue, slots, the
// others. The only goroutine is that of Advertise, which ends with the test.
//
// # Limits
//
// Slots machines run at once on this computer, over all processes; a network that
// needs more has all slots to itself. keptFailures directories of artefacts and
// keptBinaries binaries are kept. A download has downloadTime, a wait for a slot
// the time of the test.
//
// For tests only. It must never install a package, never touch the host's
// network, and never fail a test for what the computer merely lacks.
package vmtest
