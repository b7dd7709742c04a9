package procfs

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"ssi/internal/id"
)

const (
	one = 1<<id.PIDShift + 5 // PIDs of nodes 1, 2 and 3
	two = 2<<id.PIDShift + 5
	tri = 3<<id.PIDShift + 5
)

// message is a process as a node tells it.
func message(pid int, name string) *Process {
	return &Process{Pid: int32(pid), Stat: line(pid, name, statNumbers(1, 0, 0, -1, 1, 100)...), Status: []byte("Name:\t" + name + "\nPPid:\t1\n"), Cmdline: []byte(name)}
}

func pids(ps []*process) (all []int) {
	for _, p := range ps {
		all = append(all, int(p.pid))
	}
	slices.Sort(all)
	return all
}

func newCluster(up ...uint32) *Cluster { return &Cluster{Self: 1, Up: up} }

func TestTable(t *testing.T) {
	tab := newTable(0)
	tab.setCluster(newCluster(1, 2, 3))
	apply := func(n id.Node, rep *PollReply, changed, gone []int) {
		t.Helper()
		s := tab.apply(n, rep, time.Now())
		var c []*process
		for _, one := range s.changed {
			c = append(c, one.process)
		}
		if got := pids(c); !slices.Equal(got, changed) {
			t.Errorf("changed %v, want %v", got, changed)
		}
		if got := pids(s.gone); !slices.Equal(got, gone) {
			t.Errorf("gone %v, want %v", got, gone)
		}
	}
	list := func(want ...int) {
		t.Helper()
		if got := pids(tab.list()); !slices.Equal(got, want) {
			t.Errorf("the list is %v, want %v", got, want)
		}
	}
	// Everything, in two parts: shown when it is complete.
	apply(2, &PollReply{Instance: 1, At: 1, Full: true, More: true, Files: []string{"stat", "environ"}, Processes: []*Process{message(two, "a")}}, nil, nil)
	list()
	apply(2, &PollReply{Instance: 1, At: 2, Processes: []*Process{message(two+1, "b"), message(two+2, "c")}}, []int{two, two + 1, two + 2}, nil)
	list(two, two+1, two+2)
	if !tab.has(2, fileStat) || tab.has(2, fileStatus) || !tab.has(2, fileWhere) || tab.has(3, fileStat) {
		t.Error("the files of the nodes are not those they told")
	}
	// Changes.
	apply(2, &PollReply{Instance: 1, At: 3, Processes: []*Process{message(two, "a"), message(two+1, "new")}, Gone: []int32{two + 2, two + 9}}, []int{two + 1}, []int{two + 2})
	list(two, two+1)
	// Everything anew: what is missing is gone.
	apply(2, &PollReply{Instance: 2, At: 1, Full: true, Processes: []*Process{message(two+1, "new")}}, nil, []int{two})
	list(two + 1)
	// What makes no sense is left out.
	apply(2, &PollReply{Instance: 2, At: 2, Processes: []*Process{message(77, "low"), message(0, "none"), message(-5, "negative"), {Pid: two + 3, Stat: []byte("nonsense")}, {Pid: two + 4}}}, nil, nil)
	list(two + 1)
	// A process of node 3's window on node 2, and its surrogate at home.
	apply(3, &PollReply{Instance: 1, At: 1, Full: true, Processes: []*Process{message(tri, "surrogate")}}, []int{tri}, nil)
	apply(2, &PollReply{Instance: 2, At: 3, Processes: []*Process{message(tri, "guest")}}, []int{tri}, []int{tri})
	list(two+1, tri)
	if q := tab.find(tri); q == nil || q.node != 2 || string(q.files[fileComm]) != "guest\n" {
		t.Errorf("the guest is %+v", q)
	}
	if q := tab.on(3, tri); q == nil || q.node != 3 {
		t.Errorf("at home it is %+v", q)
	}
	// One from here lives there: what has its PID here is a surrogate.
	apply(2, &PollReply{Instance: 2, At: 4, Processes: []*Process{message(one, "away")}}, []int{one}, []int{one})
	standin := func(pid id.PID) bool { return pid == two+1 || pid == tri+1 }
	for _, c := range []struct {
		pid   id.PID
		node  id.Node
		local bool
	}{
		{one, 2, false},     // its surrogate
		{one + 1, 0, true},  // one of this node
		{77, 0, true},       // below the windows
		{tri, 0, true},      // placed here, whatever its home and node 2 say
		{two + 1, 2, false}, // stands for one of node 2
		{tri + 1, 0, false}, // stands for one that nobody knows
	} {
		q, local := tab.place(c.pid, standin)
		if local != c.local || (q == nil) != (c.node == 0) || q != nil && q.node != c.node {
			t.Errorf("%d is %+v, local %v; want that of node %d, %v", c.pid, q, local, c.node, c.local)
		}
	}
	// The node leaves: the surrogate at home shows again.
	s := tab.setCluster(newCluster(1, 3))
	if got := pids(s.gone); !slices.Equal(got, []int{one, two + 1, tri}) {
		t.Errorf("gone %v", got)
	}
	list(tri)
	if q := tab.find(tri); q == nil || q.node != 3 {
		t.Errorf("now it is %+v", q)
	}
	apply(2, &PollReply{Instance: 2, At: 5, Processes: []*Process{message(two, "late")}}, nil, nil) // an answer after that
	list(tri)
	// What the role node knows of the PIDs of this one, and of others that live here.
	c := newCluster(1, 3)
	c.Hidden, c.Away, c.Placed = []int32{one}, []*Moved{{Pid: one + 1, Node: 3}}, []int32{two}
	for _, want := range [][]int{{one + 1, two}, nil} { // the names of those that came are told once
		if got := pids(tab.setCluster(c).gone); !slices.Equal(got, want) {
			t.Errorf("gone %v, want %v", got, want)
		}
	}
	if q, local := tab.place(one, standin); local || q != nil {
		t.Errorf("nobody's: %+v, local %v", q, local)
	}
	if n := tab.lives(one + 1); n != 3 || tab.lives(one) != 0 {
		t.Errorf("it lives on node %d", n)
	}
}

// The kernel is told of the files that changed, not of all.
func TestChangedFiles(t *testing.T) {
	tab := newTable(0)
	tab.setCluster(newCluster(1, 2))
	m := message(two, "a")
	tab.apply(2, &PollReply{Instance: 1, At: 1, Full: true, Processes: []*Process{m}}, time.Now())
	before := tab.find(two).changed
	n := message(two, "a")
	n.Status = []byte("Name:\ta\nPPid:\t1\nThreads:\t2\n")
	s := tab.apply(2, &PollReply{Instance: 1, At: 2, Processes: []*Process{n}}, time.Now())
	if len(s.changed) != 1 || s.changed[0].files != [filePushed]bool{fileStatus: true} || !tab.find(two).changed.After(before) {
		t.Errorf("%+v", s.changed)
	}
	n.Uid = 7
	s = tab.apply(2, &PollReply{Instance: 1, At: 3, Processes: []*Process{n}}, time.Now())
	if len(s.changed) != 1 || !s.changed[0].files[fileDir] || !s.changed[0].files[fileStat] {
		t.Errorf("another user: %+v", s.changed)
	}
}

// A node cannot fill the memory of the others.
func TestTableLimit(t *testing.T) {
	tab := newTable(0)
	tab.setCluster(newCluster(1, 2))
	rep := &PollReply{Instance: 1, At: 1, Full: true}
	for i := range maxProcesses + 10 {
		rep.Processes = append(rep.Processes, &Process{Pid: int32(two + i), Stat: line(two+i, strconv.Itoa(i), statNumbers(1, 0, 0, -1, 1, 100)...)})
	}
	tab.apply(2, rep, time.Now())
	if n := len(tab.list()); n > maxProcesses {
		t.Errorf("%d processes of one node", n)
	}
}
