package api

import "time"

// The methods of the registry. Anyone may call those that read; those that
// write are for root, and keys under /sys/ are for ssi alone.
const (
	MethodRegistryGet    = "ssi.registry.Get"         // RegistryGetParams → RegistryGetReply; errno.NotFound
	MethodRegistryList   = "ssi.registry.List"        // RegistryListParams → RegistryListReply
	MethodRegistryPut    = "ssi.registry.Put"         // RegistryPutParams → RegistryWriteReply
	MethodRegistryCAS    = "ssi.registry.CAS"         // RegistryCASParams → RegistryWriteReply; errno.Exists when the comparison failed
	MethodRegistryDelete = "ssi.registry.Delete"      // RegistryDeleteParams → RegistryDeleteReply; errno.NotFound, errno.Exists
	MethodRegistryWatch  = "ssi.registry.Watch"       // RegistryWatchParams → stream of RegistryEvent; errno.Stale when compacted
	MethodRegistryGrant  = "ssi.registry.GrantLease"  // LeaseGrantParams → LeaseReply
	MethodRegistryRenew  = "ssi.registry.RenewLease"  // LeaseParams → LeaseReply; errno.NotFound
	MethodRegistryRevoke = "ssi.registry.RevokeLease" // LeaseParams → LeaseReply; errno.NotFound
)

// KV is one key of the registry.
type KV struct {
	Key     string `json:"key"`
	Value   []byte `json:"value"`           // base64 in JSON; absent from a list of keys only
	Create  uint64 `json:"create"`          // revision that created it
	Mod     uint64 `json:"mod"`             // revision of its last change
	Version uint64 `json:"version"`         // writes since it was created, from 1
	Lease   uint64 `json:"lease,omitempty"` // it goes when this lease ends
}

// RegistryGetParams asks for one key.
type RegistryGetParams struct {
	Key string `json:"key"`
	// Stale takes the answer of this node as it is, also without quorum;
	// otherwise it is at least as new as the call.
	Stale bool `json:"stale,omitempty"`
}

// RegistryGetReply is the key, and the revision of the registry it was read at.
type RegistryGetReply struct {
	KV       KV     `json:"kv"`
	Revision uint64 `json:"revision"`
}

// RegistryListParams asks for the keys that begin with Prefix, in byte order.
type RegistryListParams struct {
	Prefix   string `json:"prefix"`
	After    string `json:"after,omitempty"` // only keys behind this one
	Limit    int    `json:"limit,omitempty"` // 0: as many as one answer holds
	KeysOnly bool   `json:"keys_only,omitempty"`
	Stale    bool   `json:"stale,omitempty"`
}

// RegistryListReply is one page of keys.
type RegistryListReply struct {
	KVs      []KV   `json:"kvs"`
	More     bool   `json:"more,omitempty"` // ask again with After = the last key
	Revision uint64 `json:"revision"`
}

// RegistryPutParams writes one key.
type RegistryPutParams struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
	Lease uint64 `json:"lease,omitempty"`
}

// RegistryCASParams writes one key if it was last changed by revision Mod; Mod 0
// means it must not exist.
type RegistryCASParams struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
	Mod   uint64 `json:"mod"`
	Lease uint64 `json:"lease,omitempty"`
}

// RegistryWriteReply is the revision a write made.
type RegistryWriteReply struct {
	Revision uint64 `json:"revision"`
}

// RegistryDeleteParams removes one key, or every key that begins with Key.
type RegistryDeleteParams struct {
	Key    string `json:"key"`
	Prefix bool   `json:"prefix,omitempty"`
	Mod    uint64 `json:"mod,omitempty"` // not 0: only if last changed by this revision; not with Prefix
}

// RegistryDeleteReply says how many keys went.
type RegistryDeleteReply struct {
	Deleted  int    `json:"deleted"`
	Revision uint64 `json:"revision"`
}

// RegistryWatchParams asks for the changes of keys that begin with Prefix.
type RegistryWatchParams struct {
	Prefix string `json:"prefix"`
	After  uint64 `json:"after,omitempty"` // changes after this revision; 0: from now on
}

// RegistryEvent is one change. The first event of a watch has only a Revision:
// the one the watch starts after.
type RegistryEvent struct {
	Revision uint64 `json:"revision"`
	Put      *KV    `json:"put,omitempty"`
	Delete   string `json:"delete,omitempty"` // the key that went
}

// LeaseGrantParams asks for a lease.
type LeaseGrantParams struct {
	TTL time.Duration `json:"ttl_ns"` // it ends when not renewed this long; 1 s to 24 h
}

// LeaseParams names a lease.
type LeaseParams struct {
	ID uint64 `json:"id"`
}

// LeaseReply is a lease.
type LeaseReply struct {
	ID  uint64        `json:"id"`
	TTL time.Duration `json:"ttl_ns"`
}
