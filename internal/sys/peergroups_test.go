package sys

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPeerGroups(t *testing.T) {
	needRoot(t)
	many := make([]uint32, 100) // more than the first buffer holds
	for i := range many {
		many[i] = uint32(1000 + i)
	}
	for _, want := range [][]uint32{nil, {7}, many} {
		var pair [2]int
		if err := As(Credentials{UID: 4242, GID: 4242, Groups: want}, func() (err error) {
			pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		got, err := PeerGroups(pair[0])
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
		_, _ = unix.Close(pair[0]), unix.Close(pair[1])
	}
}
