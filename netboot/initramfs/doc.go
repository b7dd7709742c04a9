// Package initramfs builds the initial root file system of a machine: the ssi
// program as /init, the kernel modules that the machine's hardware class needs
// with their index, programs with their shared libraries, and files.
//
// Build writes an archive (cpio, format newc, of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst), compressed, to a
// file that appears complete or not at all. The same input gives the same bytes:
// entries are sorted, times are 0, everything belongs to root. Overlay makes a
// small archive that a boot loader appends to it: what is for one machine only.
// KernelImage tells whether a kernel is whole, and its version.
//
// Which modules a class has is the table in classes.go. Beside its class each
// machine gets what ssi needs, and the drivers of the commonest network cards,
// so that one whose class is wrong can still say so.
//
// It has no state, and no goroutine of its own. Memory: one module uncompressed
// (kmod.MaxModule at most), the names of all entries, and the compressor's
// window of 8 MiB. Limits: MaxEntries entries, MaxFileSize bytes a file. It must never
// run a program that it packs, and never write beside its output.
package initramfs
