// Package registry is the cluster's replicated configuration: keys with
// revisions, leases and watches. It is OpenSSI's clreg.
//
// # Store
//
// A Store is a deterministic state machine: the consensus core feeds it the
// same commands in the same order on every node, and every node has the same
// state after the same command. It has no clock, no goroutine and no lock; one
// goroutine owns it. All reads go through a View, an immutable state that is
// taken in constant time and may be read by any goroutine at any time.
//
// Every command that changes something gets one revision, the next number;
// a transaction's changes therefore share theirs. A command that fails or
// changes nothing gets none. An Entry carries the revision that created it, the
// revision that changed it last, and how often it was changed (1 = created).
//
// # Keys
//
// A key is a path: "/a/b". It starts with a slash, has no empty segment and no
// segment "." or "..", ends in no slash, is printable UTF-8 and is at most
// MaxKey bytes long. A prefix "/a" means the key /a and all keys below it; "/a/"
// means those below only; "" and "/" mean every key. Keys /sys and below belong
// to ssi itself: only a command with the system flag changes them.
//
// # Leases
//
// A key can hang on a lease and is removed with it. The state knows how long a
// lease lives and how often it was renewed, but no time: the leader watches
// the renewals with a LeaseClock and proposes LeaseExpire, which is refused if
// a renewal came in between.
//
// # Watches
//
// A View holds the last changes, at most MaxEvents of at most MaxEventBytes. A
// watch is: list, then follow the events after the listed revision. Where they
// are no longer there the answer is an error of kind errno.Stale, and the
// watcher lists again. A Hub hands events to subscribers with bounded queues;
// one that does not keep up is cut off with the same error. The Hub is the only
// part of the package with a lock (Hub.mu, then Watch.mu); it starts no
// goroutine.
//
// # Limits
//
// See the constants in limits.go. Passing one is an error of kind errno.Full or
// errno.Invalid and changes nothing. A command must never panic, whatever its
// bytes are, and must never depend on anything but the state and the command.
package registry
