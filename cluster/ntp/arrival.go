package ntp

import (
	"encoding/binary"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// wantKernelTime asks for the time of arrival of each packet (socket(7),
// SO_TIMESTAMPNS). Without it that includes our scheduling: worse, not wrong.
func wantKernelTime(conn *net.UDPConn) {
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) })
	}
}

// wallTime is the time of a clock, nil the system's.
func wallTime(now func() time.Time) time.Time {
	if now != nil {
		return now()
	}
	return time.Now()
}

// arrival is when the kernel got the packet, or now.
func arrival(now func() time.Time, oob []byte) time.Time {
	if now == nil {
		if t, ok := kernelTime(oob); ok {
			return t
		}
	}
	return wallTime(now)
}

// kernelTime finds the struct timespec in the control messages: two 64-bit
// numbers in the order of this machine.
func kernelTime(oob []byte) (time.Time, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Time{}, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			sec, nsec := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			return time.Unix(int64(sec), int64(nsec)), true
		}
	}
	return time.Time{}, false
}
