package id

import "testing"

func TestParseNode(t *testing.T) {
	for text, want := range map[string]Node{"1": 1, "127": 127} {
		if n, err := ParseNode(text); err != nil || n != want {
			t.Errorf("ParseNode(%q) = %d, %v; want %d", text, n, err, want)
		}
	}
	for _, text := range []string{"", "0", "128", "-1", "1x", " 1", "65537", "node1"} {
		if n, err := ParseNode(text); err == nil {
			t.Errorf("ParseNode(%q) = %d, want an error", text, n)
		}
	}
}

// Every PID of a node's window has that node as its home, and windows do not
// overlap.
func TestWindows(t *testing.T) {
	last := PID(0)
	for n := Node(1); n <= MaxNode; n++ {
		first, end := n.Window()
		if first <= last || first.Home() != n || (end-1).Home() != n || end.Home() == n || (first-1).Home() == n {
			t.Errorf("node %d: window [%d, %d), homes %d and %d", n, first, end, first.Home(), (end - 1).Home())
		}
		last = end - 1
	}
	// PID_MAX_LIMIT in include/linux/threads.h
	if last >= 4194304 {
		t.Errorf("the last window ends at %d, beyond the highest PID", last)
	}
	for _, p := range []PID{-5, 0, 1, 32767} {
		if p.Home() != 0 {
			t.Errorf("PID %d has home %d", p, p.Home())
		}
	}
}
