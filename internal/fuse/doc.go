// Package fuse speaks the kernel's side of FUSE (include/uapi/linux/fuse.h, fuse(4))
// for file servers that must survive their own death: a new process takes the
// connection over from a kept descriptor of /dev/fuse and asks the kernel to send
// again what was never answered. docs/decisions/0009-fuse-connection.md says why it is no
// library from outside.
//
// It knows what a tree of files, directories and symbolic links needs in which nothing is made or removed; files
// may be written.
// What a handler does not know it answers with ENOSYS, and the kernel does not ask again.
//
// Conn.Serve reads requests in as many goroutines as it is told and calls the
// handler in them; it returns when the file system is gone, and waits for all of them. A handler that
// would wait must go on in a goroutine of its own, which it waits for itself.
// Every request is answered exactly once.
//
// Lock: Conn.mu guards the table of requests that can be interrupted; it is a leaf.
//
// Limits: requests of maxRequest bytes, of which MaxWrite are what is written.
//
// A server must never open, list or stat a file of its own mount, never fork while it serves, and
// never call InvalidateEntry from a goroutine that a READDIR of the same directory
// waits for: the kernel holds the lock of the directory meanwhile.
package fuse
