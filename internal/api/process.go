package api

import (
	"syscall"

	"ssi/internal/id"
)

// Methods of the process space. Everybody may call all of them; what a call may
// do is decided by the kernel of the node that owns the process, with the
// credentials of the caller.
const (
	ProcessList   = "ssi.process.List"   // ListProcesses, streams ProcessBatch
	ProcessSignal = "ssi.process.Signal" // SignalProcesses → ProcessResults
	ProcessRenice = "ssi.process.Renice" // ReniceProcesses → ProcessResults
	ProcessWhere  = "ssi.process.Where"  // WhereProcess → ProcessPlace
	ProcessLoads  = "ssi.process.Loads"  // ListLoads → Loads
)

const (
	// MaxPIDs is how many PIDs one call may name.
	MaxPIDs = 4096
	// MaxArgs is how many bytes of a command line are shown; a longer one is cut.
	MaxArgs = 4096
	// DefaultNodeTimeout is how long a call waits for one node, in milliseconds.
	DefaultNodeTimeout = 2000
	// MaxNodeTimeout is how long it can be made to wait.
	MaxNodeTimeout = 60000
)

// ListProcesses asks for the processes of the cluster. The zero value asks for
// all of them.
type ListProcesses struct {
	Node    id.Node  `json:"node,omitempty"`    // only this node; 0 is every node that is UP
	Local   bool     `json:"local,omitempty"`   // only the caller's own node, whatever its number
	PIDs    []id.PID `json:"pids,omitempty"`    // only these; at most MaxPIDs; node-local ones (Home 0) match on every node asked
	Login   bool     `json:"login,omitempty"`   // fill LoginUID, which costs one more file for each process
	Timeout int      `json:"timeout,omitempty"` // milliseconds to wait for each node; 0 is DefaultNodeTimeout, more than MaxNodeTimeout is that
}

// ProcessBatch is one reply of ProcessList. Each node sends any number of
// batches, in the order of its PIDs; the batches of different nodes mix. The
// last one of a node has Load or Error set.
type ProcessBatch struct {
	Node      id.Node   `json:"node"`
	Processes []Process `json:"processes,omitempty"`
	Load      *Load     `json:"load,omitempty"`
	Error     string    `json:"error,omitempty"` // why the list of this node is missing or not complete; one line, names the node
}

// Process is one process (thread group) as its node's kernel tells it in proc(5).
// Zero fields are omitted in JSON. The environment is never part of it.
type Process struct {
	Node       id.Node  `json:"node"`                  // where it runs
	PID        id.PID   `json:"pid"`                   //
	PPID       id.PID   `json:"ppid,omitempty"`        //
	PGID       id.PID   `json:"pgid,omitempty"`        //
	SID        id.PID   `json:"sid,omitempty"`         //
	TTY        string   `json:"tty,omitempty"`         // controlling terminal as "pts/0" or "tty1"; empty if there is none
	TTYNr      uint32   `json:"tty_nr,omitempty"`      // device number of the terminal, as in /proc/PID/stat
	TPGID      id.PID   `json:"tpgid,omitempty"`       // foreground process group of the terminal; -1 is none
	State      string   `json:"state"`                 // one letter: R S D T t Z X I
	Flags      uint32   `json:"flags,omitempty"`       // PF_* of include/linux/sched.h
	UID        uint32   `json:"uid"`                   // real user
	EUID       uint32   `json:"euid"`                  // effective user
	GID        uint32   `json:"gid"`                   // real group
	EGID       uint32   `json:"egid"`                  // effective group
	LoginUID   *uint32  `json:"login_uid,omitempty"`   // who logged in; nil if unset, not audited or not asked for
	Nice       int32    `json:"nice,omitempty"`        // -20 to 19
	Priority   int32    `json:"priority,omitempty"`    // as the kernel tells it
	RTPriority int32    `json:"rt_priority,omitempty"` // 1 to 99 for real-time policies
	Policy     int32    `json:"policy,omitempty"`      // SCHED_* of sched(7)
	Threads    int32    `json:"threads,omitempty"`     //
	CPU        int32    `json:"cpu,omitempty"`         // the CPU it last ran on
	MinFaults  uint64   `json:"min_faults,omitempty"`  //
	MajFaults  uint64   `json:"maj_faults,omitempty"`  //
	UserTime   int64    `json:"utime_ms,omitempty"`    // CPU time in user mode, milliseconds
	SystemTime int64    `json:"stime_ms,omitempty"`    // CPU time in the kernel, milliseconds
	Start      int64    `json:"start_ms"`              // start, milliseconds since 1970 by the clock of its node, up to a second early: the kernel tells its boot in seconds
	StartTicks uint64   `json:"start_ticks,omitempty"` // start, ticks since its node's boot: with Node and PID it names one process for ever
	Age        int64    `json:"age_ms"`                // time since the start, milliseconds, measured on its node
	VSize      uint64   `json:"vsize,omitempty"`       // bytes of address space
	RSS        uint64   `json:"rss,omitempty"`         // bytes in memory
	Locked     uint64   `json:"locked,omitempty"`      // bytes locked in memory
	Comm       string   `json:"comm"`                  // name of the program, at most 64 bytes
	Args       []string `json:"args,omitempty"`        // command line, at most MaxArgs bytes in all; empty for kernel threads and zombies
	Kernel     bool     `json:"kernel,omitempty"`      // a kernel thread
}

// ProcessTarget is one process, or a process group, of a node.
type ProcessTarget struct {
	Node       id.Node `json:"node,omitempty"`        // 0: the home of the PID, and the caller's node for node-local PIDs
	PID        id.PID  `json:"pid"`                   // negative: the process group -PID; 0 and -1 are refused
	StartTicks uint64  `json:"start_ticks,omitempty"` // not 0: only if the process started then (Process.StartTicks), else ESRCH
}

// SignalProcesses sends a signal in the name of the caller.
type SignalProcesses struct {
	Targets []ProcessTarget `json:"targets"` // 1 to MaxPIDs
	Signal  int             `json:"signal"`  // 0 to 64; 0 only checks
	Timeout int             `json:"timeout,omitempty"`
}

// ReniceProcesses sets the nice value of processes in the name of the caller.
type ReniceProcesses struct {
	Targets []ProcessTarget `json:"targets"` // 1 to MaxPIDs
	Nice    int             `json:"nice"`    // -20 to 19; beyond is taken as the limit, as setpriority(2) does
	Timeout int             `json:"timeout,omitempty"`
}

// ProcessResults is the outcome for each target, in the order of the request.
type ProcessResults struct {
	Results []ProcessResult `json:"results"`
}

// ProcessResult is the outcome for one target. Errno 0 and no Error is success.
type ProcessResult struct {
	Node  id.Node       `json:"node,omitempty"`
	PID   id.PID        `json:"pid"`
	Errno syscall.Errno `json:"errno,omitempty"` // what the kernel of the node answered
	Error string        `json:"error,omitempty"` // why the node could not be asked; one line
}

// WhereProcess asks which node runs a process.
type WhereProcess struct {
	PID     id.PID  `json:"pid"`
	Node    id.Node `json:"node,omitempty"` // for node-local PIDs: the node meant; 0 is the caller's
	Timeout int     `json:"timeout,omitempty"`
}

// ProcessPlace is where a process is. A process that does not exist is an
// errno.NotFound error instead.
type ProcessPlace struct {
	PID  id.PID  `json:"pid"`
	Node id.Node `json:"node"` // runs it
	Home id.Node `json:"home"` // allocated the PID; 0 for a node-local one
}

// ListLoads asks for the loads of nodes.
type ListLoads struct {
	Node    id.Node `json:"node,omitempty"`  // 0 is every node that is UP
	Local   bool    `json:"local,omitempty"` // only the caller's own node, whatever its number
	Timeout int     `json:"timeout,omitempty"`
}

// Loads is the loads in the order of the node numbers.
type Loads struct {
	Loads []Load `json:"loads"`
}

// Load is how busy a node is. If Error is set, only Node is valid besides.
type Load struct {
	Node         id.Node    `json:"node"`
	Value        int        `json:"value"`         // 100 × max(Average[0], Recent) / CPUs: 100 means that every CPU is busy; the least is the best
	CPUs         int        `json:"cpus"`          // usable ones
	Average      [3]float64 `json:"average"`       // runnable and uninterruptible tasks over 1, 5 and 15 minutes
	Recent       float64    `json:"recent"`        // runnable tasks over the last 5 seconds: what just began
	Tasks        int        `json:"tasks"`         // threads of all processes
	CPUTotal     uint64     `json:"cpu_total_ms"`  // milliseconds of CPU time that passed since boot, all CPUs: two of them make a percentage
	CPUIdle      uint64     `json:"cpu_idle_ms"`   // milliseconds of it idle or waiting for a disk
	MemTotal     uint64     `json:"mem_total"`     // bytes
	MemAvailable uint64     `json:"mem_available"` // bytes that programs could still get without swapping
	SwapTotal    uint64     `json:"swap_total,omitempty"`
	SwapFree     uint64     `json:"swap_free,omitempty"`
	Uptime       int64      `json:"uptime_ms"` // milliseconds since the boot of the node's kernel
	Error        string     `json:"error,omitempty"`
}

// Best is the UP node with the least load, ties going to the lower number, and
// false if no node answered.
func (l Loads) Best() (id.Node, bool) {
	best := -1
	for i, v := range l.Loads {
		if v.Error != "" {
			continue
		}
		if best < 0 || v.Value < l.Loads[best].Value || v.Value == l.Loads[best].Value && v.Node < l.Loads[best].Node {
			best = i
		}
	}
	if best < 0 {
		return 0, false
	}
	return l.Loads[best].Node, true
}
