// Package raftlog keeps the log, the hard state and the snapshots of a voter on
// disk, for go.etcd.io/raft.
//
// # Files
//
//	DIR/lock          flock of the process that uses the log, with its PID
//	DIR/new.tmp/      a log that is being made; means nothing
//	DIR/r-RECOVERY/   the log; if there are two, the higher number counts
//	  identity        whose log it is; text with a checksum
//	  log-SEQ         segments
//	  snap-INDEX      snapshots, the last two
//	  reserve         1 MiB to give away when the disk is full
//	  *.tmp           files that are being made; mean nothing
//
// A directory or file gets its name when it is complete and durable: it is made
// under another name, synced, renamed, and its directory is synced.
//
// # Segments
//
// A segment has a fixed size on disk from its first moment. It consists of
// blocks of 512 bytes, the unit that disks write as a whole. Block 0 is the
// header; after it come groups, each the records of one Save in one or more
// blocks. Each block carries a CRC-32C, the number of its group and its place
// in it, and the CRC-32C over all groups before (the chain). A group is
// written by one write and one fdatasync, and the next one only after that
// succeeded; so only the last group can be unfinished, and no block is ever
// written twice. A segment begins with a group that repeats the hard state and
// names the snapshots; it ends with a group that says that another segment
// follows.
//
// So damage and a crash can be told apart. After a crash, a block of the last
// group is either as it was written or still zero: such a group was never
// acknowledged and is removed. Everything else (a block that is neither, a
// group that is not the last, a file that is missing or shorter) is damage, and
// Open returns a *DamagedError. One thing cannot be told apart: a disk that
// turns whole blocks at the very end of the log into zeros after it said that
// they are durable.
//
// A snapshot counts only if the log names it with its checksum. If the newest
// one cannot be read and the one before it and the log after that are there,
// they are used: nothing is lost. Segments are deleted when the older of the
// two snapshots covers them.
//
// # What Save promises
//
// After Save returned nil, its entries, term and vote survive a power cut. The
// commit index alone is not worth a write: it is kept in memory and written
// with the next group. When the disk is full nothing is changed and a later
// Save may succeed. After any other failure, and always after a failed sync,
// the log refuses everything until it is opened again: what the disk holds then
// is not known, and a second sync would say success without truth.
//
// # Goroutines and locks
//
// The package starts no goroutine. Save and TakeSnapshot may be called by
// different goroutines; lock order is Log.snapMu, Log.mu, storage.mu. TakeSnapshot
// writes the snapshot without Log.mu, Save does not wait for it.
//
// # Limits
//
// MaxSave bytes in one Save, MaxSnapshot bytes in a snapshot. Entries since the
// last Compact are held in memory too.
//
// The package must never make an empty log where there was one.
package raftlog
