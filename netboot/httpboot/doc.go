// Package httpboot serves kernels, initramfs, scripts and EFI programs to
// machines that boot, by HTTP/1.1: whole files and ranges (RFC 9110 14),
// resumable (ETag is the SHA-256 of the content, If-Range), GET and HEAD, kept
// connections, files of the host by sendfile(2). Content-Length and
// Content-Type are always there, as UEFI HTTP boot wants (UEFI 2.10, 24.7.3).
//
// Paths are names of a Files (the boot tree), compared as they are; no path
// becomes one of a file system. What is not there is asked of the hook Dynamic:
// scripts and messages for one machine.
//
// # Goroutines and locks
//
// One goroutine accepts, each connection has one. Close ends the connections
// and waits for all of them. listener.mu guards the counts of connections and
// is never held while waiting.
//
// # Limits
//
// Limits.Connections at once, Limits.PerClient of one address: more are closed
// at once. MaxHeader bytes of request header, which must be there within
// Limits.Header; MaxPath bytes of path; MaxBody bytes of body; MaxRanges ranges
// in a request; Limits.Idle between two requests. A reader must take each piece
// of writeChunk bytes within Limits.Chunk or is cut off.
//
// Everything that comes in is hostile: nobody has shown who they are. The
// package must never serve a secret, and never wait for a client with a lock held.
package httpboot
