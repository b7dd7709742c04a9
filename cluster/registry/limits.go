package registry

import "time"

const (
	// MaxKey is the length limit of a key or prefix in bytes.
	MaxKey = 512
	// MaxValue is the size limit of a value in bytes.
	MaxValue = 256 << 10
	// MaxTotal is the limit of the sizes of all keys and values in bytes.
	MaxTotal = 64 << 20
	// MaxKeys is how many keys the registry holds.
	MaxKeys = 200_000
	// MaxCommand is the size limit of one encoded command in bytes.
	MaxCommand = 1 << 20
	// MaxOps is how many operations, and how many comparisons, a transaction
	// may have.
	MaxOps = 128
	// MaxDelete is how many keys one DeletePrefix removes: a longer one would
	// hold up the consensus of the whole cluster.
	MaxDelete = 4096
	// MaxLeases is how many leases there may be.
	MaxLeases = 10_000
	// MaxLeaseKeys is how many keys may hang on one lease; they are removed in
	// one command.
	MaxLeaseKeys = 4096
	// MinTTL is the shortest life of a lease without renewal.
	MinTTL = 500 * time.Millisecond
	// MaxTTL is the longest.
	MaxTTL = 24 * time.Hour

	// MaxEvents is how many changes are kept for watchers.
	MaxEvents = 8192
	// MaxEventBytes is how many bytes they may have.
	MaxEventBytes = 8 << 20

	// MaxWatches is how many watches a Hub serves.
	MaxWatches = 1024
	// MaxQueue is how many events wait for one watcher before it is cut off.
	MaxQueue = MaxEvents
)
