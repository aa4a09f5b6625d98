package postgres_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// viewLine is a row of eventhose.webhook_events, with the columns that are the same in each run.
type viewLine struct {
	Sequence                         int64
	Provider, Topic, Payload, Status string
	EventID                          string
	HasPayload, Received, Processed  bool
}

func (w *sqlWorld) view(tenant string) []viewLine {
	w.Helper()
	rows, err := w.db.Query(w.Context(), `SELECT sequence, provider, topic, coalesce(payload, ''), status, event_id, payload IS NOT NULL, received_at BETWEEN now() - interval '1 hour' AND now() + interval '1 minute',
		processed_at IS NOT NULL FROM eventhose.webhook_events WHERE tenant = $1 ORDER BY sequence`, tenant)
	if err != nil {
		w.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowToStructByPos[viewLine])
	if err != nil {
		w.Fatal(err)
	}
	return lines
}

// The view tells what became of each event, also in a parent's log.
func TestWebhookEvents(t *testing.T) {
	w := newSQLWorld(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	var entries []store.NewEvent
	for i, data := range []string{`{"n": 1}`, `{"n": 2}`, "\xff\x00\xfe", `"é"`, ``, `6`, `7`, `8`} {
		e := store.NewEvent{Event: eventhose.Event{Type: "stripe.invoice.paid", Time: now, Appended: now, Data: []byte(data)}}
		if i%2 == 0 {
			e.Event.ID = fmt.Sprint("e", i+1)
		}
		if i == 5 {
			e.Event.Type = "plain"
		}
		entries = append(entries, e)
	}
	if _, err := w.st.Append(t.Context(), []store.Append{{Tenant: "c0", Parent: orderParent, Events: entries}}); err != nil {
		t.Fatal(err)
	}
	park := func(seq eventhose.Sequence, state eventhose.ParkedState) store.Parked {
		return store.Parked{Parked: eventhose.Parked{Sequence: seq, State: state, Since: now}, Tries: 1}
	}
	lane := func(sub eventhose.SubscriptionID) store.Lane {
		return store.Lane{LaneRef: store.LaneRef{Tenant: "c0", Subscription: sub}}
	}
	failed := growthAttempt("c0", 2, 3)
	failed.Outcome, failed.Status = eventhose.OutcomeFailed, 500
	partly := growthAttempt("c0", 3, 6, 7)
	partly.Outcome, partly.Reason, partly.Failed = eventhose.OutcomeFailed, eventhose.ReasonPartly, []eventhose.Sequence{7}
	other := growthAttempt("c0", 4, 2)
	other.Subscription = "sub_0000000000000000000000000b"
	if err := w.st.Commit(t.Context(), store.Progress{Lanes: []store.LaneChange{
		{Create: true, Lane: lane(growthSub), Attempts: []eventhose.Attempt{growthAttempt("c0", 1, 1), failed, partly}, Park: []store.Parked{park(2, eventhose.ParkedDead), park(3, eventhose.ParkedRetrying), park(5, eventhose.ParkedWaiting)}},
		{Create: true, Lane: lane(other.Subscription), Attempts: []eventhose.Attempt{other}, Park: []store.Parked{park(3, eventhose.ParkedWaiting)}}}}); err != nil {
		t.Fatal(err)
	}
	if err := w.st.Erase(t.Context(), "c0", 8); err != nil {
		t.Fatal(err)
	}
	ids := map[eventhose.Sequence]string{}
	for _, e := range w.read("c0") {
		ids[e.Sequence] = e.ID
	}
	want := []viewLine{
		{1, "stripe", "invoice.paid", `{"n": 1}`, "processed", ids[1], true, true, true},
		{2, "stripe", "invoice.paid", `{"n": 2}`, "dead", ids[2], true, true, true}, // by one of two
		{3, "stripe", "invoice.paid", `\xff00fe`, "failed", ids[3], true, true, false},
		{4, "stripe", "invoice.paid", `"é"`, "pending", ids[4], true, true, false},
		{5, "stripe", "invoice.paid", ``, "pending", ids[5], true, true, false},
		{6, "plain", "plain", `6`, "processed", ids[6], true, true, true},
		{7, "stripe", "invoice.paid", `7`, "pending", ids[7], true, true, false},
		{8, "stripe", "invoice.paid", ``, "pending", ids[8], true, true, false},
	}
	if got := w.view("c0"); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
	// In the parent's log they are other events, which have their own ids and nobody has taken.
	for i := range want {
		want[i].EventID, want[i].Status, want[i].Processed = "c0/"+want[i].EventID, "pending", false
	}
	// What is erased there is so only there.
	if err := w.st.Erase(t.Context(), orderParent, 6); err != nil {
		t.Fatal(err)
	}
	if own := w.view("c0"); own[5].Payload != "6" {
		t.Errorf("in its own log: %+v", own[5])
	}
	want[5].Payload = ""
	got := w.view(string(orderParent))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("in the parent's log\n%+v, want\n%+v", got, want)
	}
	var told []string
	for _, e := range w.read(orderParent) {
		told = append(told, e.ID)
	}
	if in := func(l viewLine) bool { return !slices.Contains(told, l.EventID) }; slices.ContainsFunc(got, in) {
		t.Errorf("the view has the ids %+v, the API %q", got, told)
	}
	// What is trimmed is gone, but for a place in the parent's log, which has no data any more.
	if _, err := w.st.Trim(t.Context(), "c0", store.Trim{Before: now.Add(time.Hour), Keep: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if got := w.view("c0"); len(got) != 1 || got[0].Sequence != 8 {
		t.Errorf("after trimming: %+v", got)
	}
	for _, l := range w.view(string(orderParent)) {
		// 2, 3 and 5 are parked, and so kept, and 6 is erased.
		if kept := slices.Contains([]int64{2, 3, 5, 6, 8}, l.Sequence); l.HasPayload != kept {
			b, _ := json.Marshal(l)
			t.Errorf("in the parent's log, after trimming: %s", b)
		}
	}
}
