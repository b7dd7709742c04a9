// Package install makes the installation of a Debian machine the first node of a
// cluster, and takes that back: `ssi install` and `ssi uninstall`.
//
// It adds and never replaces what boots the machine: /sbin/ssi, links for the
// commands, man pages, a configuration, the directory of the netboot service, the
// files of a new cluster, and a boot entry with init=/sbin/ssi beside the others,
// which stay as they are; so does /sbin/init.
//
// Everything that changes is written into a record (/var/lib/ssi/install.json)
// before it is done, with a copy of what was there (/var/lib/ssi/install.d). So a
// run that ends anywhere can be repeated or taken back, and uninstall undoes
// exactly what was done: what somebody else has changed since (its hash is not
// ours) is kept and named. Each file is replaced in one step, by rename(2) of a
// synced neighbour that ends in .ssi-new~.
//
// Only ssi configures the network of a machine whose init it is. So the
// configuration that is written has the [[interface]] tables of the network as it
// is then (Network.tables, pure; ReadNetwork asks the kernel): addresses, DHCP where
// an address has an end, routes, bonds, VLANs. One that is there is never edited:
// the lines that it lacks are printed.
//
// A root directory other than / is changed without being run; paths are resolved
// inside of it (os.Root), so no link in it leads out.
//
// There are no goroutines and no locks in the program; flock(2) on /var/lib keeps
// a second run out. Limits: files it reads are at most 64 MiB, the record 4 MiB.
//
// It must never touch /sbin/init, another boot entry or the default one (unless
// asked to), a file of a package, or a link that is not its own; and it removes no
// state of a cluster unless asked to.
package install
