// Package kmod finds and loads kernel modules, and finds disks, on a machine
// without udev and modprobe.
//
// An Index knows the modules of one kernel (a directory /lib/modules/VERSION):
// from the text files that depmod writes, or, where they are missing, from the
// section .modinfo of every module. It resolves a name or an alias to modules
// in load order, and writes the same text files for a subset. Rules are what
// modprobe.d and the kernel's command line say about modules. A Loader gives
// modules to the kernel; Coldplug loads those of the devices that are there, all or
// the Urgent ones, Hotplug those of devices that appear, and of all once there is
// time. Disks probes block devices for the labels and UUIDs of their file systems,
// waits for one of them, and keeps the links in /dev/disk.
//
// Index, Rules, ParseEvent, ProbeFS and Links' plan are pure: bytes in,
// decisions out. Lock: Loader.mu, held during one load. Goroutines: Scan has
// one for each processor and waits for them; Hotplug.Run has one that reads the
// socket and waits for it. Index and Rules do not change and may be shared.
//
// Limits: MaxFile bytes for an index file, MaxModule for a module, MaxModules
// modules, maxEvent bytes for an event, maxQueue waiting events (one more and
// everything is looked at again). Reading a disk that does not answer takes as
// long as the kernel tries.
//
// Formats: depmod(8), modules.dep(5), modprobe.d(5), kernel files
// scripts/mod/modpost.c, lib/kobject_uevent.c and the super blocks' headers. A
// broken file or device is reported and nothing else: the package must never
// panic, end a boot, run a command that modprobe.d asks for, or write to a disk.
package kmod
