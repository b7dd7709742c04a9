// Package pid1 is the role init: process 1 of a node (a package named init
// cannot be imported).
//
// It mounts what every program expects, starts the roles mount, spawn and node and
// restarts each with back-off, reaps every process, keeps file descriptors for
// them across their restarts, and ends the machine in order. On a
// machine that has another init it does the same as a subreaper, without
// touching mounts, and ends by exiting.
//
// It is small so that it cannot fail: one goroutine, Run's, owns the state
// (roles, shutdown) and is the only one that forks and reaps. watchChildren tells
// it when there is something to reap, and ends with the process. Two more per
// life of the node role move messages: link.read and link.report; one, link.read,
// per life of another role; link.close waits for them. They share with Run only store and ring, each under a lock of
// its own; neither lock is held while the other is taken or while anything blocks.
//
// Limits: keeper.MaxFiles kept files, keeper.MaxExits exit reports (older ones
// are dropped and counted), one pending request of the node role.
//
// It must never touch a mount of the cluster, read anything from the network,
// wait for the node role, panic (every step recovers, logs and goes on), or
// grow.
package pid1
