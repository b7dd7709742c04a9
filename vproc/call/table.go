package call

// Class says which values of the arguments make a call one of the cluster, as does
// SIGSTOP or SIGCONT in the argument Signal: whom it means may live elsewhere, and what
// stands here for it must not be stopped. All others never leave the kernel. "Foreign"
// is a PID that the home table of this node does not own: 1, and everything outside of
// the node's window and of 2..32767.
type Class uint8

// The classes.
const (
	// Process: the argument PID is foreign (so also if it is negative).
	Process Class = iota + 1
	// Group: as Process, and 0, the caller's own group.
	Group
	// Positive: the argument PID is foreign and not negative.
	Positive
	// Pair: PID or PID2 is foreign.
	Pair
	// Named: the argument PID is not 0. A PID of the window may be held by what stands
	// for a process that lives elsewhere, and the call concerns that one. (So do the
	// sched_* calls, but a thread often names itself to them, and must not wait for a
	// daemon, nor see EINTR, which a call that is caught can give.)
	Named
	// Which: argument 0 (Which) is not the table's Self, or it is and PID is not 0:
	// setpriority(2), ioprio_set(2).
	Which
	// Always: every call.
	Always
)

// Dir is the way of memory.
type Dir uint8

// The ways.
const (
	In    Dir = 1 << iota // the call reads it
	Out                   // the call writes it
	InOut = In | Out
)

// Layout is what is in memory, where that differs between architectures.
type Layout uint8

// The layouts.
const (
	Plain    Layout = iota
	Siginfo         // siginfo_t
	Timespec        // struct timespec of the architecture
	Attr            // struct sched_attr: its length is its first member
)

// Memory is what one pointer argument points to.
type Memory struct {
	Arg     int // 0 to 5
	Dir     Dir
	Size    int // bytes; with SizeArg bytes of one element
	SizeArg int // the argument that says how many elements; 0: one
	Layout  Layout
}

// Call is a row of the table.
type Call struct {
	Nr    Nr
	Name  string
	X64   int // number on x86-64; -1: none
	I386  int // number on i386; -1: none
	Class Class
	PID   int // the argument that names a process (or a group, or a user)
	PID2  int // the second one, of class Pair
	Self  int // of class Which: the value that means a process
	// Signal is the argument that is a signal; 0: none, or all of its values are alike.
	Signal int
	Mem    [2]Memory
}

// Table returns all calls, in the order of their numbers Nr; a call that i386 has
// twice is there twice.
func Table() []Call { return append([]Call(nil), table[:]...) }

// SiginfoSize is sizeof(siginfo_t), on every architecture.
const SiginfoSize = 128

// maxMask is how many bytes of processors the kernel can have (NR_CPUS of 8,192).
const maxMask = 1024

// Numbers: arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl. Arguments:
// the manual page of each call. Not here are the calls of the wait(2) family: who
// has a child elsewhere has something native here to wait for.
var table = [...]Call{
	{Nr: Kill, Name: "kill", X64: 62, I386: 37, Class: Group, Signal: 1},
	{Nr: Tkill, Name: "tkill", X64: 200, I386: 238, Class: Process, Signal: 1},
	{Nr: Tgkill, Name: "tgkill", X64: 234, I386: 270, Class: Pair, PID2: 1, Signal: 2},
	{Nr: RtSigqueueinfo, Name: "rt_sigqueueinfo", X64: 129, I386: 178, Class: Process, Signal: 1,
		Mem: [2]Memory{{Arg: 2, Dir: In, Size: SiginfoSize, Layout: Siginfo}}},
	{Nr: RtTgsigqueueinfo, Name: "rt_tgsigqueueinfo", X64: 297, I386: 335, Class: Pair, PID2: 1, Signal: 2,
		Mem: [2]Memory{{Arg: 3, Dir: In, Size: SiginfoSize, Layout: Siginfo}}},
	{Nr: PidfdOpen, Name: "pidfd_open", X64: 434, I386: 434, Class: Process},
	{Nr: PidfdSendSignal, Name: "pidfd_send_signal", X64: 424, I386: 424, Class: Always,
		Mem: [2]Memory{{Arg: 2, Dir: In, Size: SiginfoSize, Layout: Siginfo}}},
	{Nr: Getpgid, Name: "getpgid", X64: 121, I386: 132, Class: Process},
	{Nr: Getsid, Name: "getsid", X64: 124, I386: 147, Class: Process},
	{Nr: Setpgid, Name: "setpgid", X64: 109, I386: 57, Class: Pair, PID2: 1},
	{Nr: Getpriority, Name: "getpriority", X64: 140, I386: 96, Class: Which, PID: 1, Self: 0},
	{Nr: Setpriority, Name: "setpriority", X64: 141, I386: 97, Class: Which, PID: 1, Self: 0},
	{Nr: IoprioGet, Name: "ioprio_get", X64: 252, I386: 290, Class: Which, PID: 1, Self: 1},
	{Nr: IoprioSet, Name: "ioprio_set", X64: 251, I386: 289, Class: Which, PID: 1, Self: 1},
	{Nr: SchedGetaffinity, Name: "sched_getaffinity", X64: 204, I386: 242, Class: Process,
		Mem: [2]Memory{{Arg: 2, Dir: Out, Size: 1, SizeArg: 1}}},
	{Nr: SchedSetaffinity, Name: "sched_setaffinity", X64: 203, I386: 241, Class: Process,
		Mem: [2]Memory{{Arg: 2, Dir: In, Size: 1, SizeArg: 1}}},
	{Nr: SchedGetparam, Name: "sched_getparam", X64: 143, I386: 155, Class: Process,
		Mem: [2]Memory{{Arg: 1, Dir: Out, Size: 4}}},
	{Nr: SchedSetparam, Name: "sched_setparam", X64: 142, I386: 154, Class: Process,
		Mem: [2]Memory{{Arg: 1, Dir: In, Size: 4}}},
	{Nr: SchedGetscheduler, Name: "sched_getscheduler", X64: 145, I386: 157, Class: Process},
	{Nr: SchedSetscheduler, Name: "sched_setscheduler", X64: 144, I386: 156, Class: Process,
		Mem: [2]Memory{{Arg: 2, Dir: In, Size: 4}}},
	{Nr: SchedGetattr, Name: "sched_getattr", X64: 315, I386: 352, Class: Process,
		Mem: [2]Memory{{Arg: 1, Dir: Out, Size: 1, SizeArg: 2}}},
	{Nr: SchedSetattr, Name: "sched_setattr", X64: 314, I386: 351, Class: Process,
		Mem: [2]Memory{{Arg: 1, Dir: InOut, Layout: Attr}}},
	{Nr: SchedRrGetInterval, Name: "sched_rr_get_interval", X64: 148, I386: 161, Class: Process,
		Mem: [2]Memory{{Arg: 1, Dir: Out, Size: 16, Layout: Timespec}}},
	{Nr: SchedRrGetInterval, Name: "sched_rr_get_interval_time64", X64: -1, I386: 423, Class: Process,
		Mem: [2]Memory{{Arg: 1, Dir: Out, Size: 16}}},
	{Nr: Prlimit64, Name: "prlimit64", X64: 302, I386: 340, Class: Named,
		Mem: [2]Memory{{Arg: 2, Dir: In, Size: 16}, {Arg: 3, Dir: Out, Size: 16}}},
	{Nr: Ptrace, Name: "ptrace", X64: 101, I386: 26, Class: Process, PID: 1},
	{Nr: ProcessVMReadv, Name: "process_vm_readv", X64: 310, I386: 347, Class: Process},
	{Nr: ProcessVMWritev, Name: "process_vm_writev", X64: 311, I386: 348, Class: Process},
	{Nr: Kcmp, Name: "kcmp", X64: 312, I386: 349, Class: Pair, PID2: 1},
	{Nr: PerfEventOpen, Name: "perf_event_open", X64: 298, I386: 336, Class: Positive, PID: 1},
	{Nr: MovePages, Name: "move_pages", X64: 279, I386: 317, Class: Process},
	{Nr: MigratePages, Name: "migrate_pages", X64: 256, I386: 294, Class: Process},
	{Nr: GetRobustList, Name: "get_robust_list", X64: 274, I386: 312, Class: Process},
	{Nr: SsiInfo, Name: "ssi_info", X64: ClusterBase, I386: ClusterBase, Class: Always,
		Mem: [2]Memory{{Arg: 0, Dir: Out, Size: 1, SizeArg: 1}}},
	{Nr: ClusternodeNum, Name: "clusternode_num", X64: ClusterBase + 1, I386: ClusterBase + 1, Class: Always},
	{Nr: ClusternodeAvail, Name: "clusternode_avail", X64: ClusterBase + 2, I386: ClusterBase + 2, Class: Always},
	{Nr: ClusterMembership, Name: "cluster_membership", X64: ClusterBase + 3, I386: ClusterBase + 3, Class: Always,
		Mem: [2]Memory{{Arg: 0, Dir: Out, Size: 8}, {Arg: 2, Dir: Out, Size: 4, SizeArg: 1}}},
	{Nr: Rexecve, Name: "rexecve", X64: ClusterBase + 4, I386: ClusterBase + 4, Class: Always},
	{Nr: Rfork, Name: "rfork", X64: ClusterBase + 5, I386: ClusterBase + 5, Class: Always},
	{Nr: Migrate, Name: "migrate", X64: ClusterBase + 6, I386: ClusterBase + 6, Class: Always},
}
