package vm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"os"
	"time"
)

const (
	captureSize = 64 << 20 // bytes of a file
	captureSnap = 2048     // bytes of a frame
)

// capture writes frames to a file in the format of libpcap, with nanoseconds
// (pcap-savefile(5)). It stops silently when the file is full.
type capture struct {
	f    *os.File
	w    *bufio.Writer
	size int
	err  error // the first
}

func newCapture(f *os.File) *capture {
	c := &capture{f: f, w: bufio.NewWriterSize(f, 64<<10)}
	h := binary.NativeEndian.AppendUint32(nil, 0xa1b23c4d) // with nanoseconds; tells the byte order
	h = binary.NativeEndian.AppendUint16(h, 2)             // version 2.4
	h = binary.NativeEndian.AppendUint16(h, 4)
	h = binary.NativeEndian.AppendUint64(h, 0) // reserved
	h = binary.NativeEndian.AppendUint32(h, captureSnap)
	h = binary.NativeEndian.AppendUint32(h, 1) // LINKTYPE_ETHERNET
	c.write(h)
	return c
}

func (c *capture) write(b []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
		c.size += len(b)
	}
}

func (c *capture) frame(at time.Time, frame []byte) {
	kept := frame[:min(len(frame), captureSnap)]
	if c.size+16+len(kept) > captureSize {
		return
	}
	h := binary.NativeEndian.AppendUint32(make([]byte, 0, 16), uint32(at.Unix()))
	h = binary.NativeEndian.AppendUint32(h, uint32(at.Nanosecond()))
	h = binary.NativeEndian.AppendUint32(h, uint32(len(kept)))
	h = binary.NativeEndian.AppendUint32(h, uint32(len(frame)))
	c.write(h)
	c.write(kept)
}

func (c *capture) close() error {
	if c.err == nil {
		c.err = c.w.Flush()
	}
	return errors.Join(c.err, c.f.Close())
}
