package test

import (
	"encoding/json"
	"testing"
	"time"

	"ssi/internal/api"
	"ssi/internal/id"
)

// watch follows the events of a node from now on; the stream ends with the test.
func watch(c *cluster, n id.Node) <-chan api.ClusterEvent {
	c.t.Helper()
	client, err := c.Dial(c.ctx(), n)
	if err != nil {
		c.t.Fatal(err)
	}
	events := make(chan api.ClusterEvent, 1024)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(events)
		_ = client.Stream(c.t.Context(), api.MethodClusterWatch, api.WatchParams{}, func(raw json.RawMessage) error {
			var e api.ClusterEvent
			if err := json.Unmarshal(raw, &e); err != nil {
				return err
			}
			events <- e
			return nil
		})
	}()
	c.t.Cleanup(func() {
		_ = client.Close()
		<-done
	})
	// The stream runs once the daemon answers another call made after it: the
	// handlers start in order.
	c.await(n, "an answer", func(*api.ClusterStatus) bool { return true })
	return events
}

// next is the first event that matches.
func next(t *testing.T, events <-chan api.ClusterEvent, match func(api.ClusterEvent) bool) api.ClusterEvent {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the stream of events ended")
			}
			if match(e) {
				return e
			}
		case <-deadline:
			t.Fatal("the event did not come")
		}
	}
}
