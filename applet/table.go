package applet

import (
	"slices"

	"github.com/spf13/cobra"
)

// Group is a chapter of the overview that `ssi help` prints.
type Group string

// The groups.
const (
	GroupCluster Group = "The cluster"
	GroupNode    Group = "Nodes"
	GroupRun     Group = "Running programs"
	GroupProcess Group = "Processes"
	GroupTools   Group = "Tools"
	GroupRole    Group = "Roles (started by the system)"
)

// Groups lists all groups in the order of the overview.
func Groups() []Group {
	return []Group{GroupCluster, GroupNode, GroupRun, GroupProcess, GroupTools, GroupRole}
}

// Entry is one command of the program.
type Entry struct {
	Name  string
	Short string // one line, lower case, no full stop
	Group Group

	// New makes the command. It is called only for the command that runs, and
	// for all of them by help, completion and the man pages.
	New func(*Env) *cobra.Command
	// Run, when set instead of New, gets the arguments as they are: roles.
	Run func(env *Env, args []string) int

	Stock  bool // a distribution has a program of this name: linked only with --all
	NoLink bool // reached as `ssi NAME` only
}

// Table is the commands of this package; the program adds its own.
func Table() []Entry {
	return slices.Concat(clusterEntries(), machineEntries(), endEntries(), runEntries(), processEntries(), toolEntries())
}

func clusterEntries() []Entry {
	return []Entry{
		{Name: "cluster", Short: "show and manage the cluster", Group: GroupCluster, New: newCluster},
		{Name: "clustername", Short: "print the name of the cluster", Group: GroupCluster, New: newClusterName},
		{Name: "clreg", Short: "read, write and watch the registry of the cluster", Group: GroupCluster, New: newClreg},

		{Name: "clusternode_num", Short: "print the number of this node", Group: GroupNode, New: newNodeNum},
		{Name: "clusternode_getstate", Short: "print the state of a node", Group: GroupNode, New: newGetState},
		{Name: "clusternode_setstate", Short: "change the state of a node", Group: GroupNode, New: newSetState},
		{Name: "clusternode_avail", Short: "tell by the exit status whether a node is available", Group: GroupNode, New: newAvail},
		{Name: "clusternode_shutdown", Short: "halt or reboot a node in order", Group: GroupNode, New: newShutdown},
	}
}

// machineEntries is the table of machines; the names with ssi- are OpenSSI's.
func machineEntries() []Entry {
	var entries []Entry
	for _, prefix := range []string{"", "ssi-"} {
		add, ch, rm := prefix+"addnode", prefix+"chnode", prefix+"rmnode"
		entries = append(entries,
			Entry{Name: add, Short: "let a machine boot from the network and join", Group: GroupNode, New: func(env *Env) *cobra.Command { return newAddNode(env, add) }},
			Entry{Name: ch, Short: "change what the cluster knows of a machine", Group: GroupNode, New: func(env *Env) *cobra.Command { return newChNode(env, ch) }},
			Entry{Name: rm, Short: "forget a machine and revoke its certificates", Group: GroupNode, New: func(env *Env) *cobra.Command { return newRmNode(env, rm) }},
		)
	}
	return append(entries,
		Entry{Name: "clustertab", Short: "list the machines that the cluster boots", Group: GroupNode, New: newClusterTab},
		Entry{Name: "node", Short: "approve or deny machines that want to join", Group: GroupNode, New: newNode, NoLink: true},
	)
}

func runEntries() []Entry {
	return []Entry{
		{Name: "onnode", Short: "run a program on a node", Group: GroupRun, New: newOnNode},
		{Name: "onall", Short: "run a program on all nodes", Group: GroupRun, New: newOnAll},
		{Name: "onclass", Short: "run a program on the nodes of a class", Group: GroupRun, New: newOnClass},
		{Name: "fast", Short: "run a program on the least loaded node", Group: GroupRun, New: newFast},
		{Name: "fastnode", Short: "print the number of the least loaded node", Group: GroupRun, New: newFastNode},
		{Name: "localview", Short: "run a program that sees its own node only", Group: GroupRun, New: newLocalView},
	}
}

func toolEntries() []Entry {
	return []Entry{
		{Name: "doctor", Short: "examine what this machine has and lacks for ssi", Group: GroupTools, New: newDoctor, NoLink: true},
		{Name: "completion", Short: "print the completion script of a shell", Group: GroupTools, New: newCompletion, NoLink: true},
		{Name: "version", Short: "print the version", Group: GroupTools, New: newVersion, NoLink: true},
		{Name: "help", Short: "explain a command", Group: GroupTools, New: newHelp, NoLink: true},
	}
}

// find gives the entry of this name.
func find(table []Entry, name string) (Entry, bool) {
	i := slices.IndexFunc(table, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		return Entry{}, false
	}
	return table[i], true
}

// findRole gives the role of this name, for a name that is a command as well:
// without arguments, `ssi node` is the daemon.
func findRole(table []Entry, name string) (Entry, bool) {
	i := slices.IndexFunc(table, func(e Entry) bool { return e.Name == name && e.Run != nil })
	if i < 0 {
		return Entry{}, false
	}
	return table[i], true
}
