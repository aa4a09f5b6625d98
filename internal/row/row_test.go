package row

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// moment is a time with microseconds, i seconds after some date.
func moment(i int) time.Time {
	return time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC).Add(time.Duration(i) * time.Second)
}

func sampleLane() store.Lane {
	return store.Lane{LaneRef: store.LaneRef{Tenant: "t", Subscription: "s"}, Cursor: 10, Previous: 9, Began: 3, Settled: []eventhose.Sequence{12, 15}, Behind: true,
		Due: moment(1), Retrying: 1, Dead: 2, Waiting: 3, FailingSince: moment(2), Run: 4, Open: true, Probes: 5, LastSuccess: moment(3),
		Replays: []eventhose.Replay{{ID: "r", From: 1, To: 2, Types: []string{"a", "b.*"}, Status: "dead", At: 1, Sent: 3, Created: moment(4)}}}
}

func sampleParked() store.Parked {
	return store.Parked{Parked: eventhose.Parked{Event: "e", Sequence: 5, Type: "t", Key: "k", State: eventhose.ParkedDead, Attempts: 3, Since: moment(1),
		Due: moment(2), Status: 500, Reason: eventhose.ReasonStatus, Message: "m", Blocks: true, Batch: "bat_x"}, Previous: 4, Tries: 6, Replay: "r", Redriven: true}
}

func sampleAttempt() eventhose.Attempt {
	return eventhose.Attempt{ID: "att_x", Tenant: "t", Subscription: "s", Events: []string{"a", "b"}, Sequences: []eventhose.Sequence{1, 2},
		Kind: eventhose.AttemptRetry, Number: 2, Outcome: eventhose.OutcomeFailed, Reason: eventhose.ReasonTimeout, Message: "m", Status: 500,
		Started: moment(1), Duration: 5, Phases: eventhose.Phases{DNS: 1, Connect: 2, TLS: 3, Wait: 4}, URL: "https://x", Address: "1.2.3.4:5",
		ResponseHeaders: map[string]string{"a": "b", "c": "d"}, ResponseBody: "body", Next: moment(2), Replay: "r",
		Batch: "bat_x", Failed: []eventhose.Sequence{2}, Previous: []eventhose.Sequence{0, 1}}
}

// Rows as they were written before there were batches are read, and written, as they were.
func TestRowsBeforeBatches(t *testing.T) {
	fixed := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	parked, attempt := sampleParked(), sampleAttempt()
	parked.Batch, attempt.Batch, attempt.Failed, attempt.Previous = "", "", nil, nil
	old := fixed("0101650174016b04646561640682a9a19a0d8094ef3a84a9a19a0d8094ef3ae80706737461747573016d01040c017201")
	if got, err := DecodeParked(parked.Sequence, old); err != nil || !reflect.DeepEqual(got, parked) {
		t.Errorf("parked: got %+v (%v)\nwant %+v", got, err, parked)
	}
	if got := EncodeParked(&parked); !bytes.Equal(got, old) {
		t.Errorf("parked: written as %x, was %x", got, old)
	}
	old = fixed("01020161016202010205726574727904066661696c65640774696d656f7574016de80782a9a19a0d8094ef3a0a020406080968747470733a2f2f78" +
		"09312e322e332e343a3502016101620163016404626f647984a9a19a0d8094ef3a0172")
	if got, err := DecodeAttempt("t", "s", "att_x", old); err != nil || !reflect.DeepEqual(got, attempt) {
		t.Errorf("attempt: got %+v (%v)\nwant %+v", got, err, attempt)
	}
	if got := EncodeAttempt(&attempt); !bytes.Equal(got, old) {
		t.Errorf("attempt: written as %x, was %x", got, old)
	}
}

func TestRowCodecs(t *testing.T) {
	lane := sampleLane()
	parked := sampleParked()
	blocked := store.BlockedKey{Key: "k", Head: 1, First: 2, Last: 3, Count: 4, Previous: 5}
	attempt := sampleAttempt()
	check := func(name string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: got %+v (%v)\nwant %+v", name, got, err, want)
		}
	}
	for range 2 { // as they are, and empty
		gotLane, err := DecodeLane(lane.LaneRef, EncodeLane(&lane))
		check("lane", gotLane, lane, err)
		gotParked, err := DecodeParked(parked.Sequence, EncodeParked(&parked))
		check("parked", gotParked, parked, err)
		gotBlocked, err := DecodeBlocked(blocked.Key, EncodeBlocked(&blocked))
		check("blocked", gotBlocked, blocked, err)
		gotAttempt, err := DecodeAttempt(attempt.Tenant, attempt.Subscription, attempt.ID, EncodeAttempt(&attempt))
		check("attempt", gotAttempt, attempt, err)
		lane, parked, blocked, attempt = store.Lane{}, store.Parked{}, store.BlockedKey{}, eventhose.Attempt{}
	}
}

// What a run decodes to is what was encoded, newest first; the id says which it has to begin with, or that any will do.
func TestRunCodec(t *testing.T) {
	newest, oldest := sampleAttempt(), eventhose.Attempt{ID: "att_a", Tenant: "t", Subscription: "s"}
	newest.ResponseHeaders = map[string]string{"a": "b"}
	want := []eventhose.Attempt{newest, oldest}
	run := EncodeRun([]eventhose.Attempt{oldest, newest})
	one := newest
	one.ID = ""
	for _, c := range []struct {
		id    string
		value []byte
		want  []eventhose.Attempt
	}{
		{newest.ID, run, want}, {"", run, want},
		{newest.ID, EncodeAttempt(&newest), want[:1]}, {"", EncodeAttempt(&newest), []eventhose.Attempt{one}},
	} {
		if got, err := DecodeRun("t", "s", c.id, c.value); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v (%v)\nwant %+v", c.id, got, err, c.want)
		}
	}
	if got, err := DecodeRun("t", "s", oldest.ID, run); !errors.Is(err, ErrMalformed) {
		t.Errorf("a run is read as another's: %+v, %v", got, err)
	}
}

func FuzzRows(f *testing.F) {
	lane, parked, attempt := sampleLane(), sampleParked(), sampleAttempt()
	f.Add(EncodeLane(&lane))
	f.Add(EncodeParked(&parked))
	f.Add(EncodeAttempt(&attempt))
	f.Add(EncodeRun([]eventhose.Attempt{attempt, {ID: "i"}}))
	f.Fuzz(func(t *testing.T, value []byte) {
		if l, err := DecodeLane(store.LaneRef{}, value); err == nil {
			if again, err := DecodeLane(store.LaneRef{}, EncodeLane(&l)); err != nil || !reflect.DeepEqual(again, l) {
				t.Fatalf("%+v %+v %v", l, again, err)
			}
		}
		if p, err := DecodeParked(1, value); err == nil {
			if again, err := DecodeParked(1, EncodeParked(&p)); err != nil || !reflect.DeepEqual(again, p) {
				t.Fatalf("%+v %+v %v", p, again, err)
			}
		}
		if a, err := DecodeAttempt("t", "s", "i", value); err == nil {
			if again, err := DecodeAttempt("t", "s", "i", EncodeAttempt(&a)); err != nil || !reflect.DeepEqual(again, a) {
				t.Fatalf("%+v %+v %v", a, again, err)
			}
		}
		if run, err := DecodeRun("t", "s", "", value); err == nil && value[0] != Version {
			if again, err := DecodeRun("t", "s", run[0].ID, EncodeRun(run)); err != nil || !reflect.DeepEqual(again, run) {
				t.Fatalf("%+v %+v %v", run, again, err)
			}
		}
		_, _ = DecodeBlocked("k", value)
	})
}
