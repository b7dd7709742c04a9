// Package loader has what a machine is booted with: it finds the boot loaders
// of installed packages, checks kernels and initramfs before they are offered,
// writes the scripts and kernel command lines, makes unified kernel images, and
// holds all of it as a Tree of names.
//
// Nothing foreign is part of ssi: iPXE, PXELINUX and the systemd stub are read
// at run time from the Debian packages that have them (Find), and what is
// missing is named together with its package.
//
// A Tree is immutable. Its names are those it was made with, compared byte by
// byte; a name that a client asks for is looked up in a map and never becomes a
// path of a file system. An entry is bytes in memory or a file of the host,
// which was read as a whole when the entry was made (check, SHA-256) and is
// refused with ErrChanged once it is not that file any more: a kernel that an
// upgrade replaced or cut off is never served. What another node checked is known by
// its SHA-256 (Known). Shelf is the Tree of the moment;
// it is swapped as a whole.
//
// The package starts no goroutine and has no lock (Shelf is one atomic
// pointer); everything is safe for concurrent use. Limits: MaxEntries names of
// MaxName bytes, MaxImage bytes in a file, MaxUnpacked bytes of an unpacked
// initramfs, MaxCmdline bytes of command line, MaxSections of a unified kernel
// image.
//
// It must never put a secret into a Tree (everyone on the wire can read all of
// it), and never offer a file that was not checked.
package loader
