// Package machine knows the machines that the cluster boots (OpenSSI's
// clustertab) and admits them: it decides who may boot, as which node, and who is
// given the credential to join.
//
// # The table
//
// The table lives in the registry, below /sys/netboot: a Machine for each machine,
// named by its first MAC, and a Boot for the last time it was started. A Book is
// the whole table in memory; what an operator does is an edit of a copy, and the
// difference is one transaction. Each edit changes the key /sys/netboot/table and
// checks that nobody else did meanwhile, so that no number, name, address or MAC
// is given twice. Boot records change on their own, each compared with what was
// read. Book, decide and the edits are pure: state in, decision out.
//
// # Admission
//
// Nothing secret is on the command line, in DHCP or in the initramfs. A machine
// makes a key pair (HPKE, RFC 9180) when it is started and asks for admission with
// its public key. It gets a join file, with a one-time token for its number that
// lives CredentialTTL, sealed for that key. The rules:
//
//   - the first key that asks within Window of the boot that our servers saw
//     (Booted) is the key of this boot; a request with another one is refused and
//     reported;
//   - the request comes from the address that was leased to this MAC, and on our
//     own segment the neighbour table says the same MAC;
//   - the same key again gets the same bytes, and new ones when those expired
//     unused, for RenewWindow;
//   - a machine that nobody knows waits until it is approved.
//
// So who overheard everything has bytes sealed for another. What this cannot tell
// apart is a machine on the same segment that takes both the MAC and the address
// of another and is quicker; the other is then refused, and reported. Nor can a
// machine that boots from the network tell whether the network is the right one.
//
// A machine whose init node is gone asks its segment who boots machines now (find),
// as firmware does; the boot record and its key are in the registry, so it goes on
// there.
//
// # Goroutines and locks
//
// Admission.Run is the only goroutine; it writes down what DHCP and HTTP saw and
// ends with its context. Table.mu guards the cached Book, Admission.mu the queue
// and the rates; neither is held over a call. Everything may be called from any
// goroutine.
//
// # Limits
//
// See the constants in limits.go. A write is tried maxTries times.
//
// # Never
//
// It must never log or keep a token, answer a request with anything that is not
// sealed for its key, or wait for the cluster in Ask, Booted and Leased, which the
// packet loops call.
package machine
