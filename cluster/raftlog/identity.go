package raftlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"

	"ssi/internal/id"
)

// Identity says whose log it is. It never changes, except for the recovery
// generation by Replace.
type Identity struct {
	Cluster  string  // the cluster's ID: 1 to 64 printable ASCII characters, no space
	Node     id.Node // the node's number
	RaftID   uint64  // its number in the consensus, not 0
	Recovery uint64  // how often the cluster was forced to go on without its majority
}

// maxCluster is the length limit of a cluster ID, whose place in a segment's
// header is fixed.
const maxCluster = 64

func (i Identity) String() string {
	return fmt.Sprintf("cluster %s node %d raft ID %d recovery %d", i.Cluster, i.Node, i.RaftID, i.Recovery)
}

func (i Identity) check() error {
	if len(i.Cluster) == 0 || len(i.Cluster) > maxCluster {
		return fmt.Errorf("a cluster ID has 1 to %d characters, not %d", maxCluster, len(i.Cluster))
	}
	for _, c := range []byte(i.Cluster) {
		if c <= ' ' || c > '~' {
			return fmt.Errorf("the cluster ID %q has a character that is not printable ASCII", i.Cluster)
		}
	}
	if !i.Node.Valid() {
		return fmt.Errorf("%d is not a node number (1 to %d)", i.Node, id.MaxNode)
	}
	if i.RaftID == 0 {
		return fmt.Errorf("the raft ID is 0")
	}
	return nil
}

// mismatch says how i contradicts want, of which zero fields do not matter.
func (i Identity) mismatch(want Identity) string {
	switch {
	case want.Cluster != "" && want.Cluster != i.Cluster:
		return fmt.Sprintf("belongs to cluster %s, not %s", i.Cluster, want.Cluster)
	case want.Node != 0 && want.Node != i.Node:
		return fmt.Sprintf("belongs to node %d, not %d", i.Node, want.Node)
	case want.RaftID != 0 && want.RaftID != i.RaftID:
		return fmt.Sprintf("belongs to raft ID %d, not %d", i.RaftID, want.RaftID)
	case want.Recovery != 0 && want.Recovery != i.Recovery:
		return fmt.Sprintf("belongs to recovery generation %d, not %d", i.Recovery, want.Recovery)
	}
	return ""
}

// append puts the fields in binary behind b: for headers.
func (i Identity) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(i.Node))
	b = binary.LittleEndian.AppendUint64(b, i.RaftID)
	b = binary.LittleEndian.AppendUint64(b, i.Recovery)
	b = append(b, byte(len(i.Cluster)))
	b = append(b, i.Cluster...)
	return append(b, make([]byte, maxCluster-len(i.Cluster))...)
}

// identitySize is the length of what append appends.
const identitySize = 2 + 8 + 8 + 1 + maxCluster

func identityOf(b []byte) Identity {
	n := min(int(b[18]), maxCluster)
	return Identity{
		Node:     id.Node(binary.LittleEndian.Uint16(b)),
		RaftID:   binary.LittleEndian.Uint64(b[2:]),
		Recovery: binary.LittleEndian.Uint64(b[10:]),
		Cluster:  string(b[19 : 19+n]),
	}
}

const identityFile = "identity"

func (i Identity) text() string {
	s := fmt.Sprintf("ssi raft log 1\ncluster %s\nnode %d\nraft-id %d\nrecovery %d\n", i.Cluster, i.Node, i.RaftID, i.Recovery)
	return fmt.Sprintf("%scrc32c %08x\n", s, crc32.Checksum([]byte(s), castagnoli()))
}

// readIdentity reads the identity file of a log.
func readIdentity(sub string) (Identity, error) {
	path := filepath.Join(sub, identityFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return Identity{}, damaged(path, -1, err, "cannot be read")
	}
	var i Identity
	lines := strings.SplitN(string(b), "\n", 6)
	if len(lines) == 6 {
		_, err = fmt.Sscanf(strings.Join(lines[1:5], " "), "cluster %s node %d raft-id %d recovery %d", &i.Cluster, &i.Node, &i.RaftID, &i.Recovery)
	}
	if err != nil || i.check() != nil || i.text() != string(b) {
		return Identity{}, damaged(path, -1, nil, "does not match its checksum")
	}
	return i, nil
}
