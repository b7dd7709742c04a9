// Package remote decides and carries out the system calls that the gate caught.
//
// Remote.Handle is the caller's side. A call that means one process goes to the
// node where that lives; one that means a group, a user or everyone
// goes to all nodes that are UP at once, and the answers are put together as one
// kernel would have (combine.go). What this node's kernel can do alone it is told
// to do (Outcome.Continue), so that nothing of a call is imitated. Remote.Quick is
// the part of this that has to ask nobody.
//
// The home side (Register) executes calls of other nodes by a deputy in the
// caller's name (sys.Deputize): this kernel judges, and the signal comes from the
// caller's PID and user. A call that changes nothing needs no deputy if everybody
// may make it, or if the caller may by a capability. Capabilities count in the whole
// cluster. Two things are done here because the kernel cannot know them: a process
// may continue (SIGCONT) those of its own session, and calls to many never reach the
// processes that stand for others or serve the cluster (Config.Protected).
//
// A group or session of window 0 is this node's alone; all others have one number
// in the cluster.
//
// # Where a process lives
//
// That is the node in whose window its PID lies, its home, unless it was placed on
// another one (Config.Lives). That one knows it by itself. At home a surrogate has the
// PID, and the home knows where the process is. All others ask the home, which does
// nothing but name the other node, and then that one under the same Origin; maxMoves
// such answers are followed. A node that does not have the process says ESRCH.
//
// A surrogate gets what is sent to its PID at home natively and passes it on, which is
// its own matter; what it does to itself it means. SIGSTOP, SIGCONT and what reads or
// changes attributes is caught at home too, and goes to where the process lives.
//
// # Exactly once
//
// A call that changes something has an Origin, and is executed once for it: what
// was begun, and what the kernel said, is in a mapped file for each node that
// calls (answers.go). A deputy writes there itself, so a daemon may be killed at
// any moment. The next daemon waits until the last deputy of the earlier one has
// ended, by a lock that deputies hold with it; after that, what was not begun was
// not done. A call of which it is not known whether it was done fails with EIO and
// is never done again; that takes a deputy that was killed, or a daemon that was
// killed within a call to many processes. Of each node the last keptAnswers calls
// are known; what is older than one that was forgotten fails with EIO too.
//
// # Pidfds
//
// The file that pidfd_open gives for a process of another node is the reading end
// of a FIFO below Config.Dir; when the process ends, a byte is written and the
// writing end closed, so that it polls as a pidfd does. Everything about it is in
// its name, which only root can forge, and a lock on its open file description
// tells whether somebody has it still: the daemon itself keeps nothing, and a new
// one goes on. It is no pidfd for the kernel: waitid, setns, pidfd_getfd and
// process_madvise refuse it, as they would a process that they must not touch.
//
// # Limits
//
// Calls in progress are bounded by the gate and by the transport; each ends with
// its context and after callTime at the latest. A call whose node does not answer
// is repeated under its Origin while the node is UP, then it fails with ESRCH.
// maxFiles pidfds in all, userFiles of one user other than root. A call to many
// takes maxMembers processes or threads of a node. Each node that calls costs about
// 1 MiB of memory for what is known of its calls.
//
// Where a signal goes one by one to processes of the caller's own node, comes from a
// process of window 0, or goes to a node where something stands for the caller, its
// si_pid is that of the deputy: the kernel lets nobody say another one with the codes
// of kill(2) and tgkill(2) (do_rt_sigqueueinfo in kernel/signal.c). A call to a process
// that was placed, handled again by the next daemon of the caller after that process
// has ended, fails with ESRCH though it may have been done. SIGSTOP by a pidfd that was
// opened at home stops the surrogate. An outcome that is not known counts in a call to many as an error of one process would: kill(-1)
// succeeds all the same.
//
// # Goroutines and locks
//
// Remote starts one goroutine for each node of which a pidfd is open, waited for
// by Close; the parallel calls of Handle are waited for by it. Close waits for all
// calls under way. Locks: Remote.mu, turns.mu, answers.mu, which are leaves, as is
// files.mu, which is held for system calls on files in memory; a turn is held while
// a deputy works.
//
// It must never run in a process that has the gate's filter, believe an identity
// that a node claims for another node's process, execute a call that reaches the
// memory of a process, or do anything twice because it does not know.
package remote
