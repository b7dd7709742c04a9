package applet_test

import (
	"strings"
	"time"

	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

// cannedMachines is the table of machines of the fake daemon.
func cannedMachines() []api.MachineInfo {
	ago := func(d time.Duration) time.Time { return now().Add(-d) }
	return []api.MachineInfo{
		{MachineSpec: api.MachineSpec{MACs: []string{"52:54:00:77:00:02", "52:54:00:78:00:02"}, Node: 2, Name: "node2", Class: "r730", Arch: "amd64", Address: "10.0.0.2", Boot: "auto"},
			State: api.MachineUp, NodeState: api.Up, LastSeen: now(), Booted: ago(time.Hour), IP: "10.0.0.2", Phase: "up", PhaseSince: ago(time.Hour)},
		{MachineSpec: api.MachineSpec{MACs: []string{"52:54:00:77:00:03"}, Node: 3, Name: "db1", Boot: "ipxe", Args: "quiet"},
			State: api.MachineBooting, LastSeen: ago(9 * time.Second), Booted: ago(30 * time.Second), IP: "10.0.0.103", Phase: "join", PhaseSince: ago(9 * time.Second), Text: "node 3 is still UP",
			Alarm: "a second request for 52:54:00:77:00:03 with another key, from 10.0.0.103: one of the two is not the machine"},
		{MachineSpec: api.MachineSpec{MACs: []string{"52:54:00:77:00:05"}, Arch: "amd64"}, State: api.MachinePending, FirstSeen: ago(time.Hour), LastSeen: ago(5 * time.Second)},
		{MachineSpec: api.MachineSpec{MACs: []string{"52:54:00:77:00:06"}}, State: api.MachineDenied, FirstSeen: ago(2 * time.Hour)},
	}
}

// handleMachines adds the methods of the table of machines.
func (d *fakeDaemon) handleMachines() {
	handle(d, api.MethodMachineList, func(api.MachineListParams) (any, error) {
		return api.MachineListReply{Machines: cannedMachines(), Next: &api.MachineNext{Left: 2, Until: now().Add(time.Minute)}}, nil
	})
	handle(d, api.MethodMachineAdd, func(p api.MachineAddParams) (any, error) {
		var reply api.MachineAddReply
		for i, spec := range p.Specs {
			if spec.Node == 0 {
				spec.Node = id.Node(5 + i)
			}
			if spec.Name == "" {
				spec.Name = "node" + spec.Node.String()
			}
			reply.Machines = append(reply.Machines, api.MachineInfo{MachineSpec: spec, State: api.MachineKnown})
		}
		return reply, d.note(api.MethodMachineAdd, p)
	})
	handle(d, api.MethodMachineNext, func(p api.MachineNextParams) (any, error) {
		return api.MachineNext{Left: p.Count, Until: now().Add(p.For)}, d.note(api.MethodMachineNext, p)
	})
	handle(d, api.MethodMachineChange, func(p api.MachineChangeParams) (any, error) {
		return api.MachineReply{Machine: cannedMachines()[1]}, d.note(api.MethodMachineChange, p)
	})
	handle(d, api.MethodMachineApprove, func(p api.MachineApproveParams) (any, error) {
		m := cannedMachines()[2]
		m.Node, m.Name = 5, "node5"
		return api.MachineReply{Machine: m}, d.note(api.MethodMachineApprove, p)
	})
	handle(d, api.MethodMachineDeny, func(p api.MachineDenyParams) (any, error) {
		return api.MachineReply{Machine: cannedMachines()[3]}, d.note(api.MethodMachineDeny, p)
	})
	handle(d, api.MethodMachineRemove, func(p api.MachineRemoveParams) (any, error) {
		if strings.HasPrefix(p.Machine, "2") && !p.Force {
			return nil, errno.New(errno.Exists, "machine", 0, "node2 (node 2) is UP: shut it down first (clusternode_shutdown -h -N 2 now), or remove it with --force")
		}
		return api.MachineRemoveReply{Machine: cannedMachines()[0], Revoked: true}, d.note(api.MethodMachineRemove, p)
	})
}
