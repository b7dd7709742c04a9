// Package netboot boots the other machines of a cluster: the node that holds init
// answers their firmware, gives them kernel and initramfs, and admits them. It
// puts the packages below it together and decides nothing that they decide.
//
// Service.Work runs as long as this node holds init (cluster.Config.InitWork);
// then DHCP, router advertisements, TFTP and HTTP serve, and stop with the hold.
// What the next init needs is replicated: leases and the list of boot files with
// their SHA-256 are in the registry, the files themselves on every node that may
// hold init (Service.Mirror fetches them by HTTP and checks them against the
// list). The first init makes them from its own kernel, modules and binary. A new
// init serves at once: what it mirrored is neither unpacked nor read again, and the
// unified kernel image, which names this server, is made beside that.
//
// Beside the initramfs for all machines there is one for each hardware class that
// the table of machines names, made while the node serves (followClasses); until
// then, and where it cannot be made, the machines of the class get the one for all.
//
// Boot files are made by Service.Build, whose life is the node's: what a hold of init
// began goes on when that ends. A file that is replaced while it is served ends the
// service, which begins again with a look at all of them.
//
// Goroutines: those of the servers, which serve waits for; Work, Mirror and Build run
// in their callers'. No locks but those of addresses, known and builds, leaves.
//
// Limits: those of the packages below; a boot file has at most
// loader.MaxImage bytes, the list of them maxFiles entries; maxBuilds classes wait to
// be made.
//
// It must never serve on an interface that is not configured for it, offer a
// file that was not checked, or keep the node from running: what fails is logged
// and tried again.
package netboot
