package registry

import (
	"slices"
	"sort"

	"ssi/internal/errno"
)

// Event is one change of one key.
type Event struct {
	Key      string
	Revision uint64
	Entry    *Entry // the new entry, or nil if the key was removed
}

func (e Event) size() int64 {
	n := int64(len(e.Key))
	if e.Entry != nil {
		n += int64(len(e.Entry.Value))
	}
	return n
}

// eventLog is the last changes. Copies of it share the events: they are only
// ever appended behind, and cut off in front.
type eventLog struct {
	events []Event
	bytes  int64
	lost   uint64 // the last revision that is not in events any more
}

// add appends the changes of one revision and drops the oldest revisions that
// are over the limits.
func (l *eventLog) add(events []Event) {
	l.events = append(l.events, events...)
	for _, e := range events {
		l.bytes += e.size()
	}
	for len(l.events) > MaxEvents || l.bytes > MaxEventBytes {
		rev := l.events[0].Revision
		for len(l.events) > 0 && l.events[0].Revision == rev {
			l.bytes -= l.events[0].size()
			l.events = l.events[1:]
		}
		l.lost = rev
	}
}

func (l *eventLog) after(rev uint64, max int) ([]Event, error) {
	if rev < l.lost {
		return nil, compacted(rev, l.lost)
	}
	i := sort.Search(len(l.events), func(i int) bool { return l.events[i].Revision > rev })
	j := len(l.events)
	if max > 0 && j-i > max {
		// The first revision always fits, a later one only if it is complete.
		j = i + max
		for j > i && l.events[j-1].Revision == l.events[j].Revision {
			j--
		}
		if j == i {
			for j < len(l.events) && l.events[j].Revision == l.events[i].Revision {
				j++
			}
		}
	}
	return slices.Clip(l.events[i:j]), nil
}

func compacted(rev, lost uint64) error {
	return errno.New(errno.Stale, "", 0, "changes after revision %d are compacted up to %d: list again", rev, lost)
}
