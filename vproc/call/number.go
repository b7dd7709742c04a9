package call

// Nr names a system call, on every architecture. The numbers travel between
// nodes: append, never renumber.
type Nr uint8

// The calls.
const (
	None Nr = iota
	Kill
	Tkill
	Tgkill
	RtSigqueueinfo
	RtTgsigqueueinfo
	PidfdOpen
	PidfdSendSignal
	Getpgid
	Getsid
	Setpgid
	Getpriority
	Setpriority
	IoprioGet
	IoprioSet
	SchedGetaffinity
	SchedSetaffinity
	SchedGetparam
	SchedSetparam
	SchedGetscheduler
	SchedSetscheduler
	SchedGetattr
	SchedSetattr
	SchedRrGetInterval
	Prlimit64
	Ptrace
	ProcessVMReadv
	ProcessVMWritev
	Kcmp
	PerfEventOpen
	MovePages
	MigratePages
	GetRobustList
	SsiInfo
	ClusternodeNum
	ClusternodeAvail
	ClusterMembership
	Rexecve
	Rfork
	Migrate
)

// ClusterBase is the number of the first call that the kernel does not know, the
// same on all architectures: ssi_info. On a machine without ssi they fail with
// ENOSYS.
const ClusterBase = 0x5500

// Row is the table's row of n; ok is false if there is none.
func (n Nr) Row() (c Call, ok bool) {
	for i := range table {
		if table[i].Nr == n {
			return table[i], true
		}
	}
	return Call{}, false
}

// String is the name as in the manual.
func (n Nr) String() string {
	if c, ok := n.Row(); ok {
		return c.Name
	}
	return "unknown call"
}
