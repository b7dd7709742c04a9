package member

import "fmt"

// State is where a node is in its life. The names and their order are those of
// OpenSSI's clusternode_getstate(1).
type State uint8

// The eight states. Their numbers are part of the log format.
const (
	NeverUp   State = iota // a number nobody has used
	ComingUp               // joined, not yet ready
	Up                     // ready
	Shutdown               // its services are being stopped
	GoingDown              // about to leave
	KCleanup               // gone; its peers clean up what it held in their daemons
	UCleanup               // gone; the init node cleans up what users see
	Down                   // gone, nothing left of it
)

var stateNames = [...]string{"NEVERUP", "COMINGUP", "UP", "SHUTDOWN", "GOINGDOWN", "KCLEANUP", "UCLEANUP", "DOWN"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("STATE%d", uint8(s))
}

// ParseState reads a state's name as String writes it.
func ParseState(name string) (State, error) {
	for i, n := range stateNames {
		if n == name {
			return State(i), nil
		}
	}
	return 0, fmt.Errorf("%q is not a node state (one of %v)", name, stateNames)
}

// Alive reports whether a node in this state is a member: it holds a lease and
// its peers talk to it.
func (s State) Alive() bool { return s >= ComingUp && s <= GoingDown }

// Settable reports whether an operator may take a node from s to to
// (clusternode_setstate).
func (s State) Settable(to State) bool {
	switch to {
	case Up:
		return s == ComingUp || s == Shutdown
	case Shutdown:
		return s == Up
	case GoingDown:
		return s == Up || s == Shutdown
	case KCleanup:
		return s.Alive()
	case Down:
		return s == UCleanup
	}
	return false
}
