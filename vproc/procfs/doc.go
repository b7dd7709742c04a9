// Package procfs is the clusterwide /proc: the processes of all nodes in the
// place where programs look for them.
//
// Three sides. The role mount (Run) serves a file system over FUSE and holds a
// table of the processes elsewhere. The role node answers for the processes of its
// own node (Publisher) and carries the questions of its role mount to the other
// nodes (Relay). The user's processes live in the view, a mount namespace with
// that file system on /proc (see Setup); everybody else keeps the plain procfs.
//
// # The tree
//
// A real procfs stands at /proc/.local. A local PID is a relative symbolic link to
// its directory there (1234 → .local/1234), and so is every other file of the
// node (meminfo → .local/meminfo): what is local costs one link, and is what the
// kernel says, through a chroot with a recursive bind mount of /proc, too. The
// directories of the node (sys, fs, bus …) are bind mounts. /proc/cluster tells
// of the cluster, /cluster/nodeN/proc is the procfs of any node.
//
// The directory of a remote PID is made of two kinds of files. stat, status,
// statm, cmdline and comm lie in the table, as a stranger may see them, and the
// kernel caches them until they change. All others are read at home when they are
// looked up, in the caller's name, so that the kernel which owns the process
// decides; each lookup gets a file of its own, which nobody else can open.
//
// The files of the node that follow its processes, not the cluster (stat, loadavg, meminfo, uptime …), stay those of
// the node that reads them. where, in the directory of a remote process, is the number of the node it runs
// on; local processes have none. The number of a thread, which names a hidden directory in
// proc(5), does so for local threads only. A file that tunes a process (oom_score_adj,
// timerslack_ns, clear_refs …) is written at home, in the name of who writes, with one write(2) of 4 KiB at most; if the
// answer is lost, that is EIO, and it is not tried again. The maps of IDs of user namespaces cannot be written.
//
// # Where a process lives
//
// A process may live on another node than the home of its PID. It is shown as what it is where it lives, and the
// questions about it go there; its home publishes nothing of it, and shows, as long as no other node does,
// its surrogate. On the node where it lives it is a local process like any other. Stand-ins are nobody: their PIDs lead to the processes
// that they stand for. place.go says how that stays true from the first moment.
//
// # How the view comes about
//
// The role mount makes the file system with fsopen(2), serves it, and leaves it with PID 1,
// not mounted anywhere. The role spawn takes it from there and mounts it in the new namespace, which
// PID 1 then keeps for later lives of that role. So nobody ever waits for a server that is not there yet. When a
// spawn role dies between the two, the last reference to the file system goes, the role mount notices and makes another.
//
// # What is as old as what
//
// A listing of /proc asks all nodes which processes there are, and waits for that 25 ms at most; a node
// that was late is not waited for again until it has answered. What else changed of those that are
// older than 2 s is not asked for then. While remote processes
// were looked at within the last 10 s, what is cached is brought up to date twice a second; the kernel
// believes attributes for that long, so what it holds is never older when nobody asks any more. A node that is
// not UP any more takes its entries away at once. A PID that is not known is asked for at its home, up to 250 ms.
// A file that is read at home may take 3 s; the same thread gets the same answer again
// for 100 ms, and environ, which ps(1) reads of all processes, is asked for again when the process changed, or after a minute, then for up to
// 256 processes with one question.
//
// PIDs below the first window belong to their nodes and are not shown elsewhere:
// as a parent such a process is shown as 1, as a group or session as 0. The time
// of the start is put into ticks since the boot of the reading node; what is older
// than that boot started with it.
//
// # Rules
//
// Node IDs (ident.go) say what they stand for, so that a new process can serve
// what another one handed out: killed at any moment, the role mount is started anew, learns of the other nodes
// (3 s at most) and answers what waits.
//
// The name of a directory with a mount on it never expires and its lookup never fails: the kernel
// would unmount what is there.
//
// Goroutines: of Run two that read requests, which end with the process, one for each request that asks other nodes (maxSlow at
// most, maxSlowUser of one user; above it EAGAIN), one per node that is being polled, one that polls while somebody looks, one that removes names, one that reads from the role
// node. Relay: one per connection and per question (maxQuestions). Fetcher: one per file that is being read (maxFetches). Publisher: none.
//
// Locks: Table.mu, tree.mu, answers.mu, callers.mu, listings.mu, refresher.mu, Link.mu, Link.write, Publisher.turn; all leaves, none is held during a notification to the kernel
// or a question to a node, except Publisher.turn during a scan of /proc.
//
// Limits: maxCmdline bytes of a command line in the table, maxProcesses of a node, maxFile bytes of a file that is fetched,
// maxAnswers and maxAnswerBytes of those kept, maxListings open directories, maxReply bytes of an answer to Poll, maxAlso processes and maxAlsoBytes bytes of one question, maxGone ends remembered.
//
// The role mount must never exec or fork, never open anything below its own mount, and never
// tell the kernel to forget a name while a request waits for that.
// The role node must never read the FUSE /proc. Nobody may be told what the kernel of the home would not tell
// them: memory addresses in stat are what a stranger sees, also for root.
package procfs
