package proctab

import (
	"bytes"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// initialPIDNamespace is the inode of the machine's own PID namespace
// (PROC_PID_INIT_INO of include/linux/proc_ns.h).
const initialPIDNamespace = "pid:[4026531836]"

const (
	// samplePeriod is how often the meter counts runnable tasks, recentMinutes
	// over which time it averages them for Load.Recent.
	samplePeriod  = 2 * time.Second
	recentMinutes = 5.0 / 60
)

// loadMeter tells the load of this node. A node that is a whole machine takes the
// kernel's load average. A node of a lab shares its kernel with others, whose
// tasks the kernel counts as well; there the meter counts the tasks of its own
// processes and averages over them as the kernel does. What runs at the very
// moment of a question is not asked: the question itself would count.
type loadMeter struct {
	r    *Reader
	root string
	own  bool // count, do not take the kernel's average

	stop chan struct{}
	wg   sync.WaitGroup

	mu     sync.Mutex
	last   time.Time
	recent float64
	avg    [3]float64 // only if own
	tasks  int        // only if own
}

// newLoadMeter starts a meter; close ends it.
func newLoadMeter(r *Reader, root string) *loadMeter {
	ns, err := os.Readlink(root + "/self/ns/pid")
	m := &loadMeter{r: r, root: root, own: err == nil && ns != initialPIDNamespace, stop: make(chan struct{}), last: time.Now()}
	m.wg.Go(func() {
		ticker := time.NewTicker(samplePeriod)
		defer ticker.Stop()
		for {
			select {
			case at := <-ticker.C:
				m.sample(at)
			case <-m.stop:
				return
			}
		}
	})
	return m
}

func (m *loadMeter) close() {
	close(m.stop)
	m.wg.Wait()
}

// sample counts once. A failure leaves the averages as they are; read, which
// needs the same files, returns it.
func (m *loadMeter) sample(at time.Time) {
	if !m.own {
		var l api.Load
		if b, err := os.ReadFile(m.root + "/loadavg"); err == nil {
			if running, ok := parseLoadavg(b, &l); ok {
				m.average(running, 0, at)
			}
		}
		return
	}
	if running, tasks, err := m.count(); err == nil {
		m.average(running, tasks, at)
	}
}

// average takes a count of active tasks into the averages: the formula of
// kernel/sched/loadavg.c for any distance in time. They begin at 0.
func (m *loadMeter) average(active, tasks int, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	passed := max(0, at.Sub(m.last).Minutes())
	decay := func(avg, minutes float64) float64 {
		keep := math.Exp(-passed / minutes)
		return avg*keep + float64(active)*(1-keep)
	}
	for i, minutes := range [...]float64{1, 5, 15} {
		m.avg[i] = decay(m.avg[i], minutes)
	}
	m.recent = decay(m.recent, recentMinutes)
	m.last, m.tasks = at, tasks
}

// read tells the load now.
func (m *loadMeter) read() (*api.Load, error) {
	l := &api.Load{Node: m.r.self, CPUs: runtime.NumCPU()}
	loadavg := func(b []byte, l *api.Load) bool { _, ok := parseLoadavg(b, l); return ok }
	for _, f := range []struct {
		name  string
		parse func([]byte, *api.Load) bool
	}{{"loadavg", loadavg}, {"stat", parseCPU}, {"meminfo", parseMeminfo}, {"uptime", parseUptime}} {
		b, err := os.ReadFile(m.root + "/" + f.name)
		if err != nil {
			return nil, errno.New(errno.Other, "loads", m.r.self, "%w", err)
		}
		if !f.parse(b, l) {
			return nil, errno.New(errno.Other, "loads", m.r.self, "%s/%s has another form than proc(5) says", m.root, f.name)
		}
	}
	m.mu.Lock()
	l.Recent = m.recent
	if m.own {
		l.Average, l.Tasks = m.avg, m.tasks
	}
	m.mu.Unlock()
	l.Value = int(math.Round(100 * max(l.Average[0], l.Recent) / float64(max(1, l.CPUs))))
	return l, nil
}

// count counts the tasks of this node, and those that run or wait for a disk.
// The threads of this very process are none of the load.
func (m *loadMeter) count() (running, tasks int, err error) {
	self := id.PID(os.Getpid())
	s, err := m.r.get()
	if err != nil {
		return 0, 0, err
	}
	defer m.r.put(s)
	pids, err := m.r.pids()
	if err != nil {
		return 0, 0, err
	}
	var p api.Process
	for _, pid := range pids {
		b, err := m.r.read(s, pid, "stat", bufSize)
		if err != nil || parseStat(b, 1, &p) != nil {
			continue
		}
		tasks += int(p.Threads)
		if pid == self {
			continue
		}
		if p.Threads > 1 {
			running += m.threads(s, pid)
		} else if active(p.State) {
			running++
		}
	}
	return running, tasks, nil
}

func active(state string) bool { return state == "R" || state == "D" }

// threads counts the active threads of a process.
func (m *loadMeter) threads(s *scratch, pid id.PID) int {
	const maxThreads = 1024 // of one process; more do not change what the load says
	task := strconv.Itoa(int(pid)) + "/task"
	d, err := os.Open(m.root + "/" + task)
	if err != nil {
		return 0
	}
	defer d.Close()
	names, _ := d.Readdirnames(maxThreads)
	n := 0
	var p api.Process
	for _, name := range names {
		b, err := m.r.read(s, pid, "task/"+name+"/stat", bufSize)
		if err == nil && parseStat(b, 1, &p) == nil && active(p.State) {
			n++
		}
	}
	return n
}

// parseLoadavg reads /proc/loadavg; running is without the reader itself.
func parseLoadavg(b []byte, l *api.Load) (running int, ok bool) {
	f := strings.Fields(string(b))
	if len(f) < 4 {
		return 0, false
	}
	for i := range l.Average {
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil || !(v >= 0 && v <= 1e9) { // NaN too
			return 0, false
		}
		l.Average[i] = v
	}
	r, t, ok := strings.Cut(f[3], "/")
	n, err1 := strconv.ParseUint(r, 10, 31)
	tasks, err2 := strconv.ParseUint(t, 10, 31)
	if !ok || err1 != nil || err2 != nil {
		return 0, false
	}
	l.Tasks = int(tasks)
	return max(0, int(n)-1), true
}

// parseCPU reads the first line of /proc/stat: user nice system idle iowait irq
// softirq steal guest guest_nice; the guests are in user and nice already.
func parseCPU(b []byte, l *api.Load) bool {
	line, _, _ := bytes.Cut(b, []byte{'\n'})
	f, ok := after(line, "cpu ")
	if !ok {
		return false
	}
	var total, idle uint64
	for i := range 8 {
		v := f.num() * tickMS
		total += v
		if i == 3 || i == 4 {
			idle += v
		}
	}
	l.CPUTotal, l.CPUIdle = total, idle
	return !f.bad
}

func parseMeminfo(b []byte, l *api.Load) bool {
	for line := range bytes.Lines(b) {
		for _, k := range []struct {
			key string
			to  *uint64
		}{{"MemTotal:", &l.MemTotal}, {"MemAvailable:", &l.MemAvailable}, {"SwapTotal:", &l.SwapTotal}, {"SwapFree:", &l.SwapFree}} {
			if f, ok := after(line, k.key); ok {
				if *k.to = f.num() << 10; f.bad {
					return false
				}
			}
		}
	}
	return l.MemTotal > 0
}

func parseUptime(b []byte, l *api.Load) bool {
	word, _, _ := strings.Cut(string(b), " ")
	v, err := strconv.ParseFloat(word, 64)
	if err != nil || !(v >= 0 && v <= 1e12) {
		return false
	}
	l.Uptime = int64(v * 1000)
	return true
}
