// Package ics is the internode communication: all bytes that nodes of one
// cluster exchange go through one TCP port, in TLS 1.3 with certificates on
// both sides, split by ALPN into four protocols:
//
//	ssi-ics   calls between subsystems, many at once on one connection
//	ssi-raft  framed small messages, first in every queue
//	ssi-bulk  raw streams: file data, pages, terminals
//	ssi-join  the conversation of a machine that has a token
//
// Who the peer is comes from its certificate, never from its address. After
// the handshake the client sends a hello (its incarnation and epoch, for bulk
// also what it wants) and the server answers; see wire.go.
//
// # Calls
//
// A call is a request and a reply, or a request and a stream of items, all
// protobuf; frame.go has the frames. The client of a pair of nodes opens one
// connection at its first call and asks on it; the server answers on the same.
// A frame is written by the goroutine that has something to say, straight into
// the TLS connection: there is no writer to wake up. What the kernel does not
// take at once follows by a goroutine (eager), so that a link that is stuck
// costs no call more than its deadline. A frame is sent as a whole: one of
// MaxCall bytes is in the way of others for as long as the network needs for
// it, so what is large goes by ssi-bulk. A stream has 64 items or 1 MiB on
// their way at most, the rest waits at the sender; a small item costs as much as
// a call, so a sender gathers.
//
// # Interconnects
//
// A peer may have several addresses, one on each network that connects the nodes.
// A new connection takes the first that answers: the one where the peer was found
// last, then in the order that the peer prefers; the next one is tried beside it
// when there is no answer for attemptDelay (as RFC 8305). A connection stays where it is:
// when its network dies it ends by its timeout (TCP_USER_TIMEOUT; messages after
// Limits.MessageTimeout), and the next one goes another way. Only a bond keeps
// connections over the loss of a link.
//
// # Membership
//
// SetView tells the transport what the membership says. When a peer leaves (no
// member any more, or another incarnation) every call and stream to or from
// that life of it ends at once with errno.Unavailable. Until then nothing here
// decides that a peer is dead: calls have no keepalives. Calls and streams
// of callers that are no members in a view at least as new as theirs are
// refused with errno.Stale; those of a caller whose view is newer than ours are
// served. Methods and stream names listed in Config.Control are exempt, from
// fencing too: they are what the membership itself is made of. ssi-raft is
// exempt altogether: raft has terms of its own.
//
// # Limits
//
// See Limits. Send never blocks; its queue per peer is bounded and gives up the
// oldest messages first, because the newest carry what raft wants to know now.
// Streams per peer are bounded each way; what is over is refused with
// errno.Full. Handshakes in progress are bounded for strangers in all and per
// address; addresses of peers have places of their own, so strangers cannot
// keep members out. Every unary call has a deadline (Limits.CallTimeout when
// the caller set none); a streaming call lives as long as both ends are members.
// Calls in progress are bounded per connection in number and in bytes; what is
// over is refused with errno.Full.
//
// Bulk data is worked on by at most Limits.BulkProcs goroutines at once (see
// turns), so that a processor of the Go scheduler is always free for messages.
// A program that sets GOMAXPROCS to the number of CPUs plus one loses nothing
// of the throughput by that.
//
// # Goroutines
//
// Per listener one; per accepted connection one; per call in progress one, for
// its handler; per connection for calls one that reads answers, and one while
// the kernel does not take what is written; per peer with messages to send two (the
// writer, and one that notices the connection's end); per attempt to connect to a
// peer with several addresses one for each of these. All are waited for by Close.
//
// # Locks
//
// Transport.mu guards the tables of peers and connections and is never held
// over I/O or a callback. outbox.mu guards one queue. gate.mu and refusals.mu
// are leaves, as are link.mu, the mu of clientConn and serverConn (tables of
// calls) and eager.mu. No two of these are ever held together. Of a connection, rmu and
// wmu serialise its reads and writes and come before socket.wmu; none of them
// is taken under Transport.mu.
//
// # Never
//
// It must never let a byte of an unauthenticated peer past the handshake,
// decide about membership, wait without a deadline before authentication, or
// read a peer's claim about its number from anything but its certificate.
package ics
