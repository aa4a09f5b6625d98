package embedded

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func sampleAttempt() eventhose.Attempt {
	return eventhose.Attempt{ID: "att_x", Tenant: "t", Subscription: "s", Events: []string{"a", "b"}, Sequences: []eventhose.Sequence{1, 2},
		Kind: eventhose.AttemptRetry, Number: 2, Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonTimeout, Message: "m", Status: 500,
		Started: moment(1), Duration: 5, Phases: eventhose.Phases{DNS: 1, Connect: 2, TLS: 3, Wait: 4}, URL: "https://x", Address: "1.2.3.4:5",
		ResponseHeaders: map[string]string{"a": "b", "c": "d"}, ResponseBody: "body", Next: moment(2), Replay: "r",
		Batch: "bat_x", Failed: []eventhose.Sequence{2}}
}

// A commit with many attempts is one row, from which each comes back as it was, by subscription, by event and in pages,
// among attempts that have rows of their own, until its events go.
func TestRuns(t *testing.T) {
	s, err := Open("data", Options{FS: vfs.NewMem(), MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const events = 300
	group := []store.Append{{Tenant: "acme"}}
	for range events {
		group[0].Events = append(group[0].Events, store.NewEvent{Event: eventhose.Event{Type: "a", Time: moment(1), Appended: moment(1), Data: []byte("{}")}})
	}
	if _, err := s.Append(ctx, group); err != nil {
		t.Fatal(err)
	}
	var all []eventhose.Attempt // oldest first
	commit := func(n int, seqs func(i int) []eventhose.Sequence) {
		c := store.LaneChange{Lane: store.Lane{LaneRef: store.LaneRef{Tenant: "acme", Subscription: "sub_a"}}, Create: true}
		for i := range n {
			a := sampleAttempt()
			a.ID, a.Tenant, a.Subscription, a.Sequences = fmt.Sprintf("att_%06d", len(all)), "acme", "sub_a", seqs(i)
			switch i % 3 {
			case 1:
				a.ResponseHeaders, a.Message = nil, ""
			case 2:
				a.ResponseHeaders = map[string]string{"date": fmt.Sprint(i), "server": "x"}
			}
			c.Attempts, all = append(c.Attempts, a), append(all, a)
		}
		slices.Reverse(c.Attempts) // in whatever order
		if err := s.Commit(ctx, store.Progress{Lanes: []store.LaneChange{c}}); err != nil {
			t.Fatal(err)
		}
	}
	one := func(from int) func(int) []eventhose.Sequence {
		return func(i int) []eventhose.Sequence { return []eventhose.Sequence{eventhose.Sequence(from + i)} }
	}
	commit(100, one(1))
	commit(2, one(7))
	commit(50, one(101))
	commit(1, func(int) []eventhose.Sequence { return nil }) // a test
	commit(1, func(int) []eventhose.Sequence {
		var many []eventhose.Sequence
		for seq := eventhose.Sequence(40); seq < 240; seq++ {
			many = append(many, seq)
		}
		return many
	})

	first := eventhose.Sequence(1)
	check := func() {
		t.Helper()
		var left []eventhose.Attempt
		for _, a := range slices.Backward(all) {
			if len(a.Sequences) == 0 || slices.Max(a.Sequences) >= first {
				left = append(left, a)
			}
		}
		var got []eventhose.Attempt
		for before := ""; ; {
			page, err := s.Attempts(ctx, "acme", store.AttemptQuery{Subscription: "sub_a", Before: before, Limit: 7})
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, page...); len(page) < 7 {
				break
			}
			before = page[6].ID
		}
		if !reflect.DeepEqual(got, left) {
			t.Fatalf("%d listed, %d are there", len(got), len(left))
		}
		for _, through := range []eventhose.Sequence{first + 1, first + 40, 170, 239} {
			var want []eventhose.Attempt
			for _, a := range left {
				if slices.ContainsFunc(a.Sequences, func(seq eventhose.Sequence) bool { return seq >= first && seq <= through }) {
					want = append(want, a)
				}
			}
			got, err := s.Attempts(ctx, "acme", store.AttemptQuery{Subscription: "sub_a", Sequence: first, Through: through, Limit: 1000})
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("of events %d to %d: %d, %v, want %d", first, through, len(got), err, len(want))
			}
		}
		for _, seq := range []eventhose.Sequence{1, 7, 8, 40, 63, 64, 100, 150, 151, 239} {
			var want []eventhose.Attempt
			for _, a := range left {
				if slices.Contains(a.Sequences, seq) && seq >= first {
					want = append(want, a)
				}
			}
			for _, sub := range []eventhose.SubscriptionID{"", "sub_a"} {
				got, err := s.Attempts(ctx, "acme", store.AttemptQuery{Subscription: sub, Sequence: seq, Limit: 1000})
				if err != nil || seq >= first && !reflect.DeepEqual(got, want) {
					t.Fatalf("of event %d: %d, %v, want %d", seq, len(got), err, len(want))
				}
				for i := range got {
					rest, err := s.Attempts(ctx, "acme", store.AttemptQuery{Subscription: sub, Sequence: seq, Before: got[i].ID, Limit: 1000})
					if err != nil || len(rest) != len(got)-i-1 {
						t.Fatalf("of event %d before %s: %d, %v", seq, got[i].ID, len(rest), err)
					}
				}
			}
		}
	}
	check()
	for _, keep := range []eventhose.Sequence{30, 65, 101, 160} {
		if _, err := s.Trim(ctx, "acme", store.Trim{Bytes: int64(2 * (events - keep + 1))}); err != nil {
			t.Fatal(err)
		}
		h, err := s.Head(ctx, "acme")
		if first = h.First; err != nil || first != keep {
			t.Fatalf("the log begins at %d, want %d, %v", first, keep, err)
		}
		check()
	}
	// What is left of rows: the large one and the test, with as many rows by block as have events left.
	rows := map[byte]int{}
	for _, space := range []byte{spaceAttempt, spaceTried, spaceTriedRun, spaceRecent} {
		if err := s.scan([]byte{space}, []byte{space + 1}, func(_, _ []byte) (bool, error) { rows[space]++; return true, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if rows[spaceAttempt] != 2 || rows[spaceTried] != 1 || rows[spaceTriedRun] != 2 {
		t.Errorf("%d rows of attempts, %d by event, %d by block are left", rows[spaceAttempt], rows[spaceTried], rows[spaceTriedRun])
	}
}
