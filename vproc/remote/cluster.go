package remote

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"ssi/cluster/member"
	"ssi/internal/id"
	"ssi/vproc/call"
)

// The cluster's own system calls. Numbers are of the byte order of the machine,
// all 32 bits wide but where 64 are said; libcluster/cluster.h has them for C. They
// fail with EFAULT for a null pointer, and on a machine without ssi with ENOSYS.
//
//	ssi_info(void *buf, size_t size, int node)
//
// writes what there is to know of the cluster (node 0) or of one node, at most size
// bytes, and returns how many there are: a later version may have more of them.
// EINVAL: size is less than 8, or node cannot be a number of a node; ENOENT: no
// node has had it.
//
//	the cluster: size, version 1, own number, highest possible number of a node,
//	             how many nodes are UP, number of the init node (0: none now),
//	             64 bits: epoch; 72 bytes: name, ending in 0
//	a node:      size, number, state (member.State), flags, 64 bits: incarnation,
//	             64 bits: epoch since which it has that state; 72 bytes: name
//
//	clusternode_num(void)
//
// returns the number of the node on which the caller runs.
//
//	clusternode_avail(int node)
//
// returns 1 if the node is UP and runs programs, 0 if not. EINVAL: no node can have
// that number.
//
//	cluster_membership(u64 *epoch, int count, u32 *nodes)
//
// writes the epoch and the numbers of the nodes that are UP and run programs, in
// rising order, at most count of them, and returns how many there are. Either
// pointer may be null. EINVAL: count is negative.
//
//	rexecve(char *path, char **argv, char **envp, int node)
//
// is not answered here, but by vproc/ptrace.
//
//	rfork, migrate
//
// are reserved: ENOSYS.
const (
	infoSize    = 104
	infoVersion = 1
	minInfo     = 8
	nameSize    = 72
)

// Flags of a node in ssi_info.
const (
	infoCapable = 1 << iota // it may become the init node
	infoWitness             // it votes, and runs no programs
	infoInit                // it is the init node
)

// cluster answers the cluster's own calls.
func (m *Remote) cluster(r *call.Request) call.Reply {
	if m.cfg.Members == nil {
		return call.Reply{Errno: unix.ENOSYS}
	}
	switch r.Nr {
	case call.SsiInfo:
		return m.info(r)
	case call.ClusternodeNum:
		return call.Reply{Ret: int64(m.self)}
	case call.ClusternodeAvail:
		n := r.Int(0)
		if n < 1 || n > int32(id.MaxNode) {
			return call.Reply{Errno: unix.EINVAL}
		}
		if runs(m.cfg.Members().Get(id.Node(n))) {
			return call.Reply{Ret: 1}
		}
		return call.Reply{}
	case call.ClusterMembership:
		return m.membership(r)
	}
	return call.Reply{Errno: unix.ENOSYS}
}

// runs tells whether a node is there for programs.
func runs(n member.Node) bool { return n.State == member.Up && !n.Info.Witness }

func (m *Remote) info(r *call.Request) call.Reply {
	size, n := r.Args[1], r.Int(2)
	switch {
	case size < minInfo || n < 0 || n > int32(id.MaxNode):
		return call.Reply{Errno: unix.EINVAL}
	case r.Args[0] == 0:
		return call.Reply{Errno: unix.EFAULT}
	}
	view := m.cfg.Members()
	var b []byte
	u32 := func(v uint32) { b = binary.NativeEndian.AppendUint32(b, v) }
	u64 := func(v uint64) { b = binary.NativeEndian.AppendUint64(b, v) }
	name := m.cfg.Name
	u32(infoSize)
	if n == 0 {
		up := uint32(0)
		for _, node := range view.Nodes {
			if runs(node) {
				up++
			}
		}
		u32(infoVersion)
		u32(uint32(m.self))
		u32(uint32(id.MaxNode))
		u32(up)
		u32(uint32(view.Init))
		u64(uint64(view.Epoch))
	} else {
		node := view.Get(id.Node(n))
		if node.State == member.NeverUp {
			return call.Reply{Errno: unix.ENOENT}
		}
		name = node.Info.Name
		u32(uint32(n))
		u32(uint32(node.State))
		u32(infoFlags(view, node))
		u64(uint64(node.Incarnation))
		u64(uint64(node.Since))
	}
	var text [nameSize]byte
	copy(text[:nameSize-1], name)
	b = append(b, text[:]...)
	return call.Reply{Ret: infoSize, Out: b[:min(uint64(len(b)), size, uint64(r.OutLen))]}
}

func infoFlags(view *member.View, n member.Node) uint32 {
	var flags uint32
	if n.Info.Capable {
		flags |= infoCapable
	}
	if n.Info.Witness {
		flags |= infoWitness
	}
	if view.Init == n.Node {
		flags |= infoInit
	}
	return flags
}

func (m *Remote) membership(r *call.Request) call.Reply {
	count := int(r.Int(1))
	if count < 0 {
		return call.Reply{Errno: unix.EINVAL}
	}
	view := m.cfg.Members()
	var out []byte
	if r.Args[0] != 0 {
		out = binary.NativeEndian.AppendUint64(out, uint64(view.Epoch))
	}
	total := 0
	for _, n := range view.Nodes {
		if !runs(n) {
			continue
		}
		if total < count && r.Args[2] != 0 {
			out = binary.NativeEndian.AppendUint32(out, uint32(n.Node))
		}
		total++
	}
	return call.Reply{Ret: int64(total), Out: out[:min(len(out), int(r.OutLen))]}
}
