package raftlog

import (
	"encoding/binary"
	"fmt"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// The kinds of records. They are on disk: never renumber.
const (
	recEntry = 1 // raftpb.Entry
	recState = 2 // raftpb.HardState
	recMark  = 3 // a snapshot counts from here on
	recEnd   = 4 // another segment follows
	recBase  = 5 // first record of a segment: the last index of the log before
)

// recordHead is kind (1) and length (4) of a record.
const recordHead = 5

// mark names a snapshot that counts.
type mark struct {
	index, term uint64
	crc         uint32 // of the file
	received    bool   // from the leader: the log before it does not count any more
}

func appendRecord(b []byte, kind byte, data []byte) []byte {
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func appendProto(b []byte, kind byte, m proto.Message) ([]byte, error) {
	var opt proto.MarshalOptions
	b = append(b, kind)
	b = binary.LittleEndian.AppendUint32(b, uint32(opt.Size(m)))
	opt.UseCachedSize = true
	return opt.MarshalAppend(b, m)
}

func appendMark(b []byte, m mark) []byte {
	var d []byte
	d = binary.LittleEndian.AppendUint64(d, m.index)
	d = binary.LittleEndian.AppendUint64(d, m.term)
	d = binary.LittleEndian.AppendUint32(d, m.crc)
	if m.received {
		d = append(d, 1)
	} else {
		d = append(d, 0)
	}
	return appendRecord(b, recMark, d)
}

func appendBase(b []byte, last uint64) []byte {
	return appendRecord(b, recBase, binary.LittleEndian.AppendUint64(nil, last))
}

// record is a decoded record: one of the fields is set.
type record struct {
	entry *pb.Entry
	state *pb.HardState
	mark  *mark
	base  *uint64
	end   bool
}

// decodeRecords calls fn with each record of a group.
func decodeRecords(b []byte, fn func(record) error) error {
	for len(b) > 0 {
		if len(b) < recordHead {
			return fmt.Errorf("a record is cut off")
		}
		kind, n := b[0], binary.LittleEndian.Uint32(b[1:])
		if b = b[recordHead:]; uint64(n) > uint64(len(b)) {
			return fmt.Errorf("a record is cut off")
		}
		data := b[:n]
		b = b[n:]
		var r record
		switch {
		case kind == recEntry:
			r.entry = &pb.Entry{}
			if err := proto.Unmarshal(data, r.entry); err != nil {
				return fmt.Errorf("an entry cannot be read: %w", err)
			}
		case kind == recState:
			r.state = &pb.HardState{}
			if err := proto.Unmarshal(data, r.state); err != nil {
				return fmt.Errorf("a hard state cannot be read: %w", err)
			}
		case kind == recMark && n == 21:
			r.mark = &mark{
				index: binary.LittleEndian.Uint64(data), term: binary.LittleEndian.Uint64(data[8:]),
				crc: binary.LittleEndian.Uint32(data[16:]), received: data[20] != 0,
			}
		case kind == recEnd && n == 0:
			r.end = true
		case kind == recBase && n == 8:
			last := binary.LittleEndian.Uint64(data)
			r.base = &last
		default:
			return fmt.Errorf("a record of kind %d with %d bytes is not known to this version of ssi", kind, n)
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}
