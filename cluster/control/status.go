package control

import (
	"context"
	"slices"
	"sync"
	"time"

	"ssi/cluster/member"
	"ssi/internal/api"
	"ssi/internal/errno"
	"ssi/internal/id"
)

func (c *Control) status(ctx context.Context, call *api.Call) error {
	p, err := params[api.StatusParams](call)
	if err != nil {
		return err
	}
	if p.Barrier {
		if err := c.Cluster.Barrier(ctx); err != nil {
			return err
		}
	}
	s := c.snapshot()
	if p.Measure {
		var loads map[id.Node]int
		var offsets map[id.Node]time.Duration
		var reports map[id.Node]api.MachineReport
		var wg sync.WaitGroup
		wg.Go(func() { loads = c.Loads(ctx) })
		wg.Go(func() { offsets = c.Cluster.ClockOffsets(ctx) })
		wg.Go(func() { reports = c.Reports(ctx) })
		wg.Wait()
		for i := range s.Nodes {
			n := &s.Nodes[i]
			if v, ok := loads[n.Node]; ok {
				n.Load = &v
			}
			if v, ok := offsets[n.Node]; ok {
				n.ClockOffset = &v
			}
			if v, ok := reports[n.Node]; ok {
				n.Machine = &v
			}
		}
	}
	return call.Reply(s)
}

// snapshot is the cluster as this node sees it now.
func (c *Control) snapshot() *api.ClusterStatus {
	view, st, serving := c.Cluster.Members().Load(), c.Cluster.Status().Load(), c.Cluster.Serving().Load()
	ident := c.Cluster.Identity()
	s := &api.ClusterStatus{
		Name: ident.Name, ID: ident.ID, Self: ident.Node, Profile: ident.Profile, PIDShift: id.PIDShift,
		Transition: view.Epoch, InitNode: view.Init, InitTerm: view.InitTerm,
		Quorum: st.Leader != 0, Advice: st.Problem,
		Serving: serving.OK, Cause: serving.Cause, Strays: c.Strays(),
		Time: c.Time(), Booting: booting(c.Machines(), time.Now()), Nodes: []api.NodeInfo{},
	}
	if !s.Quorum {
		s.InitNode = 0 // whoever it was, it holds init no more as far as this node can tell
	}
	for _, n := range view.Nodes {
		info := api.NodeInfo{
			Node: n.Node, Name: n.Info.Name, Addr: n.Info.Addr, Others: n.Info.Others, State: api.State(n.State.String()), Role: api.RoleClient,
			Capable: n.Info.Capable, Init: n.Node == s.InitNode, Classes: n.Info.Classes,
			Incarnation: n.Incarnation, Transition: n.Since, Since: time.Unix(0, n.SinceWall), Cause: n.Cause,
		}
		switch {
		case n.Info.Witness:
			info.Role = api.RoleWitness
			if !slices.Contains(st.Voters, n.Node) || slices.Contains(st.Lost, n.Node) {
				info.Phase = "does not vote yet"
			}
		case slices.Contains(st.Lost, n.Node):
			info.Role, info.Phase = api.RoleLearner, "lost its copy of the cluster's state, gets a new one in order to vote again"
		case slices.Contains(st.Learners, n.Node):
			info.Role, info.Phase = api.RoleLearner, "catching up in order to vote"
		case slices.Contains(st.Voters, n.Node):
			info.Role = api.RoleVoter
		}
		if n.Node == ident.Node && !serving.OK {
			info.Phase = "fenced: " + serving.Cause
		}
		s.Nodes = append(s.Nodes, info)
	}
	return s
}

// pendingFor is how long a machine that waits for approval counts as one that
// boots, since it asked last: it asks every few seconds while it is switched on.
const pendingFor = 10 * time.Minute

// booting is those machines that are about to become nodes.
func booting(all []api.MachineInfo, now time.Time) []api.MachineInfo {
	var out []api.MachineInfo
	for _, m := range all {
		if m.State == api.MachineBooting || m.State == api.MachinePending && now.Sub(m.LastSeen) < pendingFor {
			out = append(out, m)
		}
	}
	return out
}

func transition(t member.Transition) api.Transition {
	out := api.Transition{Epoch: t.Epoch, Time: time.Unix(0, t.Wall), Node: t.Node, Term: t.Term, Cause: t.Cause}
	if !t.Init {
		out.From, out.To = api.State(t.From.String()), api.State(t.To.String())
	}
	return out
}

func (c *Control) history(_ context.Context, call *api.Call) error {
	p, err := params[api.HistoryParams](call)
	if err != nil {
		return err
	}
	view := c.Cluster.Members().Load()
	news, _ := view.Since(p.After)
	reply := api.HistoryReply{Transitions: []api.Transition{}}
	if len(view.History) > 0 {
		reply.Oldest = view.History[0].Epoch
	}
	for _, t := range news {
		if p.Node == 0 || t.Node == p.Node {
			reply.Transitions = append(reply.Transitions, transition(t))
		}
	}
	if over := len(reply.Transitions) - p.Limit; p.Limit > 0 && over > 0 {
		reply.Transitions = reply.Transitions[over:]
	}
	return call.Reply(reply)
}

// watch streams transitions, and when this node is fenced and serves again.
func (c *Control) watch(ctx context.Context, call *api.Call) error {
	p, err := params[api.WatchParams](call)
	if err != nil {
		return err
	}
	view, viewChanged := c.Cluster.Members().Get()
	serving, servingChanged := c.Cluster.Serving().Get()
	last := view.Epoch
	if p.After != 0 {
		last = p.After
	}
	for {
		news, complete := view.Since(last)
		for _, t := range news {
			out := transition(t)
			if err := call.Send(api.ClusterEvent{Missed: !complete, Transition: &out}); err != nil {
				return err
			}
			complete, last = true, t.Epoch
		}
		select {
		case <-ctx.Done():
			return nil
		case <-viewChanged:
			view, viewChanged = c.Cluster.Members().Get()
		case <-servingChanged:
			serving, servingChanged = c.Cluster.Serving().Get()
			event := api.ServingEvent{Time: time.Now(), Serving: serving.OK, Cause: serving.Cause}
			if err := call.Send(api.ClusterEvent{Serving: &event}); err != nil {
				return err
			}
		}
	}
}

func (c *Control) setState(ctx context.Context, call *api.Call) error {
	p, err := params[api.SetStateParams](call)
	if err != nil {
		return err
	}
	to, err := member.ParseState(string(p.State))
	if err != nil {
		return errno.New(errno.Invalid, "set state", 0, "%w", err)
	}
	from := c.Cluster.Members().Load().Get(p.Node).State
	epoch, err := c.Cluster.SetState(ctx, p.Node, to, p.Cause)
	if err != nil {
		return err
	}
	return call.Reply(api.SetStateReply{Transition: epoch, From: api.State(from.String())})
}
