package remote

import (
	"encoding/binary"
	"log/slog"
	"testing"

	"ssi/vproc/call"
)

// The cluster's own calls, byte by byte.
func TestCluster(t *testing.T) {
	m, err := New(Config{Self: 1, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Name: "test", Members: testView})
	must(t, err)
	defer m.Close()
	words := func(b []byte) (w []uint32) {
		for ; len(b) >= 4; b = b[4:] {
			w = append(w, binary.NativeEndian.Uint32(b))
		}
		return w
	}
	equal := func(got, want []uint32) bool {
		for i, w := range want {
			if i >= len(got) || got[i] != w {
				return false
			}
		}
		return true
	}
	const infoOut, listOut = 8192, 8 + 4*10
	for _, c := range []struct {
		name   string
		nr     call.Nr
		args   [3]int
		outLen uint32
		want   string
		words  []uint32
		bytes  int
	}{
		{"the cluster", call.SsiInfo, [3]int{1, 4096, 0}, infoOut, "104", []uint32{104, 1, 1, 127, 2, 2, 77, 0, 0x74736574, 0}, 104},
		{"a node", call.SsiInfo, [3]int{1, 4096, 2}, infoOut, "104", []uint32{104, 2, 2, infoInit, 22, 0, 6, 0, 0x6f7774, 0}, 104},
		{"one that may become init", call.SsiInfo, [3]int{1, 4096, 1}, infoOut, "104", []uint32{104, 1, 2, infoCapable}, 104},
		{"a witness", call.SsiInfo, [3]int{1, 4096, 3}, infoOut, "104", []uint32{104, 3, 2, infoWitness}, 104},
		{"a node that is down", call.SsiInfo, [3]int{1, 4096, 4}, infoOut, "104", []uint32{104, 4, 7, 0}, 104},
		{"a part", call.SsiInfo, [3]int{1, 12, 0}, 12, "104", []uint32{104, 1, 1}, 12},
		{"too small", call.SsiInfo, [3]int{1, 7, 0}, 7, "EINVAL", nil, 0},
		{"a null pointer", call.SsiInfo, [3]int{0, 100, 0}, 0, "EFAULT", nil, 0},
		{"never used", call.SsiInfo, [3]int{1, 100, 9}, 100, "ENOENT", nil, 0},
		{"no number", call.SsiInfo, [3]int{1, 100, 128}, 100, "EINVAL", nil, 0},
		{"a negative number", call.SsiInfo, [3]int{1, 100, -1}, 100, "EINVAL", nil, 0},
		{"own number", call.ClusternodeNum, [3]int{}, 0, "1", nil, 0},
		{"available", call.ClusternodeAvail, [3]int{2}, 0, "1", nil, 0},
		{"a witness is not", call.ClusternodeAvail, [3]int{3}, 0, "0", nil, 0},
		{"down", call.ClusternodeAvail, [3]int{4}, 0, "0", nil, 0},
		{"never used", call.ClusternodeAvail, [3]int{5}, 0, "0", nil, 0},
		{"no number", call.ClusternodeAvail, [3]int{0}, 0, "EINVAL", nil, 0},
		{"membership", call.ClusterMembership, [3]int{1, 10, 1}, listOut, "2", []uint32{77, 0, 1, 2}, 16},
		{"room for one", call.ClusterMembership, [3]int{1, 1, 1}, 12, "2", []uint32{77, 0, 1}, 12},
		{"the nodes only", call.ClusterMembership, [3]int{0, 10, 1}, 40, "2", []uint32{1, 2}, 8},
		{"how many", call.ClusterMembership, [3]int{0, 0, 0}, 0, "2", nil, 0},
		{"a negative count", call.ClusterMembership, [3]int{1, -1, 1}, listOut, "EINVAL", nil, 0},
		{"rexecve", call.Rexecve, [3]int{}, 0, "ENOSYS", nil, 0},
		{"rfork", call.Rfork, [3]int{}, 0, "ENOSYS", nil, 0},
		{"migrate", call.Migrate, [3]int{}, 0, "ENOSYS", nil, 0},
	} {
		r := &call.Request{Nr: c.nr, OutLen: c.outLen}
		for i, a := range c.args {
			r.Args[i] = uint64(a)
		}
		o := m.Handle(t.Context(), r)
		if said(o) != c.want || !equal(words(o.Reply.Out), c.words) || len(o.Reply.Out) != c.bytes {
			t.Errorf("%s: %s, %d", c.name, said(o), words(o.Reply.Out))
		}
	}
	m.cfg.Members = nil
	if o := m.Handle(t.Context(), &call.Request{Nr: call.ClusternodeNum}); said(o) != "ENOSYS" {
		t.Errorf("without a cluster: %s", said(o))
	}
}
