package raftlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	// MaxSnapshot is the size limit of a snapshot in bytes.
	MaxSnapshot = 128 << 20

	snapshotMagic   = "ssisnap1"
	snapshotVersion = 1
	// snapshotHead is magic (8), version (4), length of the metadata (4),
	// length of the data (8), identity.
	snapshotHead = 24 + identitySize
)

func snapshotPath(sub string, index uint64) string {
	return filepath.Join(sub, fmt.Sprintf("snap-%016x", index))
}

// writeSnapshot makes a durable snapshot file and returns its checksum. After
// an error there is none.
func writeSnapshot(sub string, id Identity, snap *pb.Snapshot) (crc uint32, err error) {
	meta, err := proto.Marshal(snap.GetMetadata())
	if err != nil {
		return 0, err
	}
	data := snap.GetData()
	if len(data) > MaxSnapshot {
		return 0, fmt.Errorf("the snapshot has %d bytes, the limit is %d", len(data), MaxSnapshot)
	}
	head := append([]byte{}, snapshotMagic...)
	head = binary.LittleEndian.AppendUint32(head, snapshotVersion)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(meta)))
	head = binary.LittleEndian.AppendUint64(head, uint64(len(data)))
	head = append(id.append(head), meta...)
	crc = crc32.Update(crc32.Checksum(head, castagnoli()), castagnoli(), data)

	path := snapshotPath(sub, snap.GetMetadata().GetIndex())
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	for _, part := range [][]byte{head, data, binary.LittleEndian.AppendUint32(nil, crc)} {
		if err == nil {
			_, err = f.Write(part)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = publish(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return 0, err
	}
	return crc, nil
}

// readSnapshot reads the snapshot that the log names. Every error is a
// *DamagedError.
func readSnapshot(sub string, id Identity, m mark) (*pb.Snapshot, error) {
	path := snapshotPath(sub, m.index)
	info, err := os.Stat(path)
	if err != nil {
		return nil, damaged(path, -1, err, "cannot be read")
	}
	if info.Size() > MaxSnapshot+(1<<20) {
		return nil, damaged(path, -1, nil, "it has %d bytes, over the limit", info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, damaged(path, -1, err, "cannot be read")
	}
	if len(b) < snapshotHead+4 {
		return nil, damaged(path, int64(len(b)), nil, "it is cut off")
	}
	if string(b[:8]) != snapshotMagic {
		return nil, damaged(path, 0, nil, "it is no snapshot")
	}
	body := b[:len(b)-4]
	crc := crc32.Checksum(body, castagnoli())
	if crc != binary.LittleEndian.Uint32(b[len(body):]) {
		return nil, damaged(path, -1, nil, "it does not match its checksum")
	}
	if crc != m.crc {
		return nil, damaged(path, -1, nil, "it is not the one that the log names")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != snapshotVersion {
		return nil, damaged(path, 8, nil, "it has format %d, this version of ssi reads %d", v, snapshotVersion)
	}
	nmeta, ndata := uint64(binary.LittleEndian.Uint32(b[12:])), binary.LittleEndian.Uint64(b[16:])
	if ndata > MaxSnapshot || snapshotHead+nmeta+ndata != uint64(len(body)) {
		return nil, damaged(path, 12, nil, "it has impossible lengths")
	}
	if got := identityOf(b[24:]); got != id {
		return nil, damaged(path, 24, nil, "it belongs to %s, the log to %s", got, id)
	}
	snap := &pb.Snapshot{Metadata: &pb.SnapshotMetadata{}, Data: body[snapshotHead+nmeta:]}
	if err := proto.Unmarshal(body[snapshotHead:snapshotHead+nmeta], snap.Metadata); err != nil {
		return nil, damaged(path, snapshotHead, err, "its metadata cannot be read")
	}
	snap = pb.EnsureSnapshot(snap)
	if snap.Metadata.GetIndex() != m.index || snap.Metadata.GetTerm() != m.term {
		return nil, damaged(path, snapshotHead, nil, "it is of index %d term %d, the log names index %d term %d",
			snap.Metadata.GetIndex(), snap.Metadata.GetTerm(), m.index, m.term)
	}
	return snap, nil
}
