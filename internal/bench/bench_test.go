package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	h := &histogram{}
	for i := 1; i <= 10_000; i++ {
		h.add(time.Duration(i) * 10 * time.Microsecond) // up to 100 ms
	}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var again histogram
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatal(err)
	}
	again.merge(h)
	for q, want := range map[float64]time.Duration{.5: 50 * time.Millisecond, .95: 95 * time.Millisecond, .99: 99 * time.Millisecond, 1: 100 * time.Millisecond} {
		for _, x := range []*histogram{h, &again} {
			if got := x.quantile(q); math.Abs(float64(got-want))/float64(want) > 1.0/parts {
				t.Errorf("quantile %v is %v, want %v", q, got, want)
			}
		}
	}
	if again.total != 20_000 || again.most != h.most {
		t.Errorf("%d in all, %v at most", again.total, again.most)
	}
	for _, d := range []time.Duration{-1, 0, time.Microsecond, 31 * time.Microsecond, 32 * time.Microsecond, time.Hour, 1000 * time.Hour} {
		if b := bucketOf(d); b < 0 || b >= buckets || d < 19*time.Hour && upper(b) < d {
			t.Errorf("%v is in bucket %d, which ends at %v", d, b, upper(b))
		}
	}
}

func TestMedianAndInterval(t *testing.T) {
	for _, c := range []struct {
		values            []float64
		median, low, high float64
	}{
		{nil, 0, 0, 0},
		{[]float64{3}, 3, 3, 3},
		{[]float64{5, 1, 3, 2, 4}, 3, 1, 5},
		// The published table of the sign test: of 8 values the second and the last but one hold 92.97 %, so none is left
		// out; of 9 they hold 96.09 %; of 20 the sixth and the fifteenth hold 95.86 %.
		{[]float64{8, 7, 6, 5, 4, 3, 2, 1}, 4.5, 1, 8},
		{[]float64{9, 8, 7, 6, 5, 4, 3, 2, 1}, 5, 2, 8},
		{[]float64{20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 10.5, 6, 15},
	} {
		low, high := interval(c.values)
		if m := median(c.values); m != c.median || low != c.low || high != c.high {
			t.Errorf("%v: median %v in %v–%v, want %v in %v–%v", c.values, m, low, high, c.median, c.low, c.high)
		}
	}
}

// What the load writes the receiver reads, and the data is JSON of about the size that was asked for.
func TestEventData(t *testing.T) {
	data := appendData(nil, 1000, 7)
	sent := time.Unix(1764000000, 123)
	stamp(data, 42, sent)
	if !json.Valid(data) || len(data) < 950 || len(data) > 1000 {
		t.Errorf("%d bytes: %s", len(data), data)
	}
	var body []byte
	for range 3 {
		body = append(body, `{"data":`...)
		body = append(body, data...)
		body = append(body, '}')
	}
	n := 0
	stamps(body, func(number int64, at time.Time) {
		if n++; number != 42 || !at.Equal(sent) {
			t.Errorf("read %d sent %v", number, at)
		}
	})
	if n != 3 || len(places(body)) != 3 {
		t.Errorf("%d events are read, %d are found", n, len(places(body)))
	}
	stamps(body[:len(body)-len(data)-10], func(int64, time.Time) { n++ })
	stamps([]byte(marker), func(int64, time.Time) { n++ })
	if n != 5 {
		t.Errorf("%d events in bodies that are cut off", n)
	}
}

// The receiver tells different events from repeats, by group.
func TestReceiverCounts(t *testing.T) {
	rc := &receiver{}
	send := func(path string, numbers ...int64) int {
		var body []byte
		for _, n := range numbers {
			data := appendData(nil, 100, 1)
			stamp(data, n, time.Now())
			body = append(body, data...)
		}
		w := httptest.NewRecorder()
		rc.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
		return w.Code
	}
	for _, path := range []string{"/r/1", "/r/1/any/thing", "/r/2"} {
		if code := send(path, 5, 6, 100_000); code != http.StatusNoContent {
			t.Errorf("%s is answered %d", path, code)
		}
	}
	for _, path := range []string{"/r/x", "/r/-1", fmt.Sprintf("/r/%d", maxGroups), "/else"} {
		if code := send(path, 1); code != http.StatusNotFound {
			t.Errorf("%s is answered %d", path, code)
		}
	}
	var one, both receiverStats
	both.Latency, one.Latency = &histogram{}, &histogram{}
	rc.groups[2].addTo(&both)
	rc.groups[1].addTo(&one)
	rc.groups[1].addTo(&both)
	if one.Events != 3 || one.Duplicates != 3 || one.Requests != 2 || both.Events != 6 || one.Latency.total != 3 || both.Latency.total != 3 {
		t.Errorf("one %+v, both %+v", one, both)
	}
	w := httptest.NewRecorder()
	rc.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/count?groups=1,2", nil))
	if w.Body.String() != "6" {
		t.Errorf("the count is %s", w.Body)
	}
}

// The load's requests are what a server understands, and refusals are told from acknowledgements and failures.
func TestLoad(t *testing.T) {
	var got []string
	answers := []int{http.StatusAccepted, http.StatusTooManyRequests, http.StatusAccepted, http.StatusInternalServerError}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var events []struct {
			Type, ID string
			Data     struct{ N string }
		}
		if err := json.NewDecoder(r.Body).Decode(&events); err != nil || r.URL.Path != "/v1/tenants/acme/events" || r.Header.Get("Authorization") != "Bearer k" {
			t.Errorf("%s %v: %v", r.URL, r.Header, err)
		}
		for _, e := range events {
			got = append(got, e.Type+" "+e.ID+" "+e.Data.N)
		}
		w.WriteHeader(answers[0])
		answers = answers[1:]
		fmt.Fprint(w, "{}")
	}))
	defer server.Close()
	l := &loadRun{loadOrder: loadOrder{URL: server.URL, Key: "k", Tenants: []string{"acme"}, Connections: 1, Batch: 2, Bytes: 100, Types: []string{"a", "b"}, IDs: "i-",
		First: 10, Nanos: int64(time.Minute), Events: 8}}
	res, err := l.run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if res.Events != 4 || res.Requests != 2 || res.Refused != 1 || res.Failed != 1 || res.Next != 18 || !strings.Contains(res.Failure, "500") {
		t.Errorf("%+v", res)
	}
	if len(got) != 8 || got[0] != "a i-0000000000000010 000000000010" || got[7] != "b i-0000000000000017 000000000017" {
		t.Errorf("%q", got)
	}
}

// The parts take orders until their input ends, and say what went wrong.
func TestParts(t *testing.T) {
	var out bytes.Buffer
	in := strings.NewReader(`{"do":"url"}` + "\n" + `{"do":"stats","groups":[0]}` + "\n")
	if err := Part(t.Context(), partReceiver, in, &out); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 2 || !strings.Contains(lines[0], `"url":"http://127.0.0.1:`) || !strings.Contains(lines[1], `"events":0`) {
		t.Errorf("%q", lines)
	}
	out.Reset()
	dir := t.TempDir()
	order, err := json.Marshal(bareFileOrder{Dir: dir, Producers: 4, Batch: 3, Bytes: 100, Nanos: int64(20 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	if err := Part(t.Context(), partBareFile, strings.NewReader(string(order)+"\n"+`{"dir":"`+dir+`/absent","producers":1}`+"\n"), &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var res partResult
	if err := json.Unmarshal([]byte(lines[0]), &res); err != nil || res.Events == 0 || res.Events != 3*res.Requests || res.Latency.total != res.Requests {
		t.Errorf("%s %v", lines[0], err)
	}
	if len(lines) != 2 || !strings.Contains(lines[1], "error") {
		t.Errorf("%q", lines)
	}
	if err := Part(t.Context(), "else", in, &out); err == nil {
		t.Error("a part that does not exist runs")
	}
}

// A reader counts each event once, wherever what comes is cut.
func TestReaderParts(t *testing.T) {
	var stream []byte
	for _, n := range []int64{7, 8, 9, 9, 6} { // one twice, and one from before it began
		data := appendData(nil, 200, int(n))
		stamp(data, n, time.Now())
		stream = append(append(append(stream, `id: c`+"\ndata: {\"data\":"...), data...), "}\n\n"...)
	}
	for cut := range stream {
		for _, second := range []int{1, dataHead, len(stream)} {
			r := &reader{first: 7}
			r.part(stream[:cut])
			to := min(cut+second, len(stream))
			r.part(stream[cut:to])
			r.part(stream[to:])
			if r.events != 3 || r.doubles != 1 || r.latency.total != 3 {
				t.Fatalf("cut at %d and %d: %d events, %d again", cut, to, r.events, r.doubles)
			}
		}
	}
}
