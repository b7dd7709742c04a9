package standin

import (
	"io"

	"ssi/internal/proc"
	"ssi/internal/sys"
)

// read takes the reports of stand-ins until Close.
func (m *Maker) read() {
	b := make([]byte, sys.ReportSize)
	for {
		if _, err := io.ReadFull(m.reports, b); err != nil {
			return
		}
		r := sys.DecodeReport(b)
		m.mu.Lock() // Create has it until the process is known
		_, placed := m.placed[r.PID]
		if r.Status.Exited() || r.Status.Signaled() {
			delete(m.placed, r.PID)
			if s := m.all[r.PID]; s != nil && !alive(s.pidfd) {
				m.drop(s)
			}
		}
		m.mu.Unlock()
		if placed {
			m.c.Exited(proc.Exit{
				PID: r.PID, Status: r.Status,
				UserTime: micros(r.Usage.Utime.Sec, r.Usage.Utime.Usec), SystemTime: micros(r.Usage.Stime.Sec, r.Usage.Stime.Usec),
				MaxRSS: r.Usage.Maxrss,
			})
		}
	}
}

func micros(sec, usec int64) int64 { return sec*1e6 + usec }
