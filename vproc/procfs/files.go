package procfs

import "golang.org/x/sys/unix"

// source is how a file of a process comes about.
type source uint8

const (
	pushed   source = iota // it lies in the table
	fetched                // it is read at home, for whom looks it up
	link                   // where it leads is read at home
	numbers                // a directory of numbers, which are listed at home
	names                  // a directory with the names of namespaces
	invented               // it is made here
	written                // it cannot be read
)

// procFile is a file in the directory of a process.
type procFile struct {
	name   string
	mode   uint32 // with the type
	source source
}

const (
	open    = unix.S_IFREG | 0o444
	private = unix.S_IFREG | 0o400
	tunable = unix.S_IFREG | 0o644
	symlink = unix.S_IFLNK | 0o777
	dir     = unix.S_IFDIR | 0o555
)

// The files in the table, by their index in files.
const (
	fileDir = iota // the directory itself
	fileStat
	fileStatus
	fileStatm
	fileCmdline
	fileComm
	filePushed // how many there are
)

// The directories of numbers and names.
const (
	fileFD = iota + filePushed
	fileFDInfo
	fileTask
	fileNS
	fileWhere
)

// files is the directory of a process elsewhere, of what proc_pid(5) has what can be
// told across nodes. A node ID holds the index: append only.
var files = [...]procFile{
	fileDir:     {"", dir, invented},
	fileStat:    {"stat", open, pushed},
	fileStatus:  {"status", open, pushed},
	fileStatm:   {"statm", open, pushed},
	fileCmdline: {"cmdline", open, pushed},
	fileComm:    {"comm", tunable, pushed},
	fileFD:      {"fd", unix.S_IFDIR | 0o500, numbers},
	fileFDInfo:  {"fdinfo", unix.S_IFDIR | 0o555, numbers},
	fileTask:    {"task", dir, numbers},
	fileNS:      {"ns", unix.S_IFDIR | 0o511, names},
	fileWhere:   {"where", open, invented},
	11:          {"cwd", symlink, link},
	12:          {"exe", symlink, link},
	13:          {"root", symlink, link},
	14:          {"environ", private, fetched},
	15:          {"auxv", private, fetched},
	16:          {"maps", open, fetched},
	17:          {"smaps", open, fetched},
	18:          {"smaps_rollup", open, fetched},
	19:          {"numa_maps", open, fetched},
	20:          {"limits", open, fetched},
	21:          {"io", private, fetched},
	22:          {"cgroup", open, fetched},
	23:          {"cpuset", open, fetched},
	24:          {"oom_score", open, fetched},
	25:          {"oom_score_adj", tunable, fetched},
	26:          {"oom_adj", tunable, fetched},
	27:          {"wchan", open, fetched},
	28:          {"sched", tunable, fetched},
	29:          {"schedstat", open, fetched},
	30:          {"loginuid", tunable, fetched},
	31:          {"sessionid", open, fetched},
	32:          {"mounts", open, fetched},
	33:          {"mountinfo", open, fetched},
	34:          {"mountstats", private, fetched},
	35:          {"personality", private, fetched},
	36:          {"stack", private, fetched},
	37:          {"syscall", private, fetched},
	38:          {"timers", open, fetched},
	39:          {"timerslack_ns", unix.S_IFREG | 0o666, fetched},
	40:          {"uid_map", open, fetched},
	41:          {"gid_map", open, fetched},
	42:          {"projid_map", open, fetched},
	43:          {"setgroups", open, fetched},
	44:          {"coredump_filter", tunable, fetched},
	45:          {"autogroup", tunable, fetched},
	46:          {"arch_status", open, fetched},
	47:          {"timens_offsets", open, fetched},
	48:          {"ksm_stat", private, fetched},
	49:          {"ksm_merging_pages", private, fetched},
	50:          {"seccomp_cache", private, fetched},
	51:          {"patch_state", private, fetched},
	52:          {"clear_refs", unix.S_IFREG | 0o200, written},
}

// writable reports whether a file of a process elsewhere can be written: those that tune a process. The maps
// of IDs of user namespaces cannot.
func (f procFile) writable() bool { return f.mode&unix.S_IFMT == unix.S_IFREG && f.mode&0o222 != 0 }

// taskFiles is the directory of a thread elsewhere. A node ID has no room for a serial number here,
// so all readers share a file: it is what a stranger may read. Append only.
var taskFiles = [...]procFile{
	fileDir: {"", dir, invented},
	1:       {"stat", open, fetched},
	2:       {"status", open, fetched},
	3:       {"statm", open, fetched},
	4:       {"cmdline", open, fetched},
	5:       {"comm", open, fetched},
	6:       {"children", open, fetched},
	7:       {"cgroup", open, fetched},
	8:       {"cpuset", open, fetched},
	9:       {"oom_score", open, fetched},
	10:      {"oom_score_adj", open, fetched},
	11:      {"sched", open, fetched},
	12:      {"schedstat", open, fetched},
	13:      {"wchan", open, fetched},
	14:      {"limits", open, fetched},
}

// taskComm is the file of a thread that tells whether it exists.
const taskComm = 5

// namespaces is the names in ns/. Append only.
var namespaces = [...]string{
	"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts",
}

// stranger is a user that no process has (see internal/sys): what the kernel lets
// it read, everybody may read.
const stranger = 1<<32 - 2
