package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/tmaxmax/go-sse"

	v1 "github.com/eventhose/eventhose/proto/eventhose/v1"
)

const (
	walkEvents = 100_000
	walkKills  = 5
)

// walker is a consumer that changes doors. It keeps nothing but its cursor.
type walker struct {
	t      *testing.T
	s      *restarted
	random *rand.Rand
	cursor string
	last   int
	// left is how many events it still takes at this door.
	left int
	// at are the events after which the server is killed.
	at map[int]bool
	// restarting is the server on its way back.
	restarting sync.WaitGroup
}

// errEnough is that a door has been walked through as far as was wanted.
var errEnough = errors.New("on to the next door")

// take is told of an event, and answers errEnough when it wants no more at this door.
func (w *walker) take(sequence int, cursor string) error {
	if sequence != w.last+1 {
		w.t.Fatalf("event %d came after %d", sequence, w.last)
	}
	w.last, w.cursor = sequence, cursor
	if w.at[sequence] {
		w.restarting.Go(func() {
			w.s.stop(syscall.SIGKILL)
			w.s.start()
		})
	}
	if w.left--; w.left == 0 || w.last == walkEvents {
		return errEnough
	}
	return nil
}

func (w *walker) request(ctx context.Context, method, path, accept, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.s.url+"/v1/tenants/default/"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	req.Header.Set("Accept", accept)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		text, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusServiceUnavailable {
			w.t.Fatalf("%s %s: %s %s", method, path, res.Status, text)
		}
		return nil, fmt.Errorf("%s", text)
	}
	return res, nil
}

// read reads a JSON answer.
func (w *walker) read(ctx context.Context, method, path, body string, into any) error {
	res, err := w.request(ctx, method, path, "application/json", body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(into)
}

// placed is what the walker looks at of an event.
type placed struct {
	Sequence int
	Cursor   string
}

func (w *walker) poll(ctx context.Context) error {
	for {
		var page struct {
			Data   []placed
			Cursor string
		}
		if err := w.read(ctx, http.MethodGet, fmt.Sprintf("events?wait=5s&limit=%d&after=%s", 1+w.random.IntN(1000), w.cursor), "", &page); err != nil {
			return err
		}
		for _, e := range page.Data {
			if err := w.take(e.Sequence, e.Cursor); err != nil {
				return err
			}
		}
	}
}

func (w *walker) sse(ctx context.Context) error {
	res, err := w.request(ctx, http.MethodGet, "events/stream?after="+w.cursor, "text/event-stream", "")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for message, err := range sse.Read(res.Body, nil) {
		if err != nil {
			return err
		}
		var e placed
		if message.Data == "" { // a cursor that has moved
			continue
		}
		if err := json.Unmarshal([]byte(message.Data), &e); err != nil || e.Cursor != message.LastEventID {
			w.t.Fatalf("%v: %+v", err, message)
		}
		if err := w.take(e.Sequence, e.Cursor); err != nil {
			return err
		}
	}
	return io.EOF
}

// socket opens a WebSocket.
func (w *walker) socket(ctx context.Context, path string, protocols ...string) (*websocket.Conn, error) {
	//nolint:bodyclose // which the connection is
	conn, _, err := websocket.Dial(ctx, w.s.url+"/v1/tenants/default/"+path,
		&websocket.DialOptions{Subprotocols: protocols, HTTPHeader: http.Header{"Authorization": {"Bearer " + adminKey}}})
	if err == nil {
		conn.SetReadLimit(4 << 20)
	}
	return conn, err
}

func say(ctx context.Context, conn *websocket.Conn, format string, a ...any) error {
	return conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, format, a...))
}

func (w *walker) ws(ctx context.Context) error {
	conn, err := w.socket(ctx, "events/ws?after="+w.cursor)
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	for granted := 0; ; {
		if granted == 0 {
			granted = 1 + w.random.IntN(2000)
			if err := say(ctx, conn, `{"type":"grant","events":%d}`, granted); err != nil {
				return err
			}
		}
		_, b, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		var f struct {
			Type, Cursor string
			Event        placed
		}
		if err := json.Unmarshal(b, &f); err != nil {
			w.t.Fatalf("%v: %s", err, b)
		}
		if f.Type == "event" {
			granted--
			if err := w.take(f.Event.Sequence, f.Cursor); err != nil {
				return err
			}
		}
	}
}

func (w *walker) grpc(ctx context.Context) error {
	stream, err := openStream[v1.SubscribeRequest, v1.SubscribeResponse](withKey(ctx), dialGRPC(w.t, w.s.url), "Subscribe")
	if err == nil {
		err = errors.Join(stream.Send(&v1.SubscribeRequest{Tenant: "default", After: w.cursor}), stream.CloseSend())
	}
	if err != nil && !errors.Is(err, io.EOF) { // with EOF Recv tells why
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, e := range m.GetEvents() {
			if err := w.take(int(e.GetSequence()), e.GetCursor()); err != nil {
				return err
			}
		}
	}
}

func (w *walker) graphql(ctx context.Context) error {
	conn, err := w.socket(ctx, "graphql", "graphql-transport-ws")
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	err = say(ctx, conn, `{"type":"connection_init"}`)
	if err == nil {
		err = say(ctx, conn, `{"type":"subscribe","id":"1","payload":{"query":"subscription { events(after: %s) { cursor event { sequence } } }"}}`,
			strings.ReplaceAll(strconv.Quote(w.cursor), `"`, `\"`))
	}
	for err == nil {
		var b []byte
		if _, b, err = conn.Read(ctx); err != nil {
			break
		}
		var f struct {
			Type    string
			Payload struct {
				Data struct {
					Events struct {
						Cursor string
						Event  *placed
					}
				}
			}
		}
		if json.Unmarshal(b, &f) != nil { // the payload of an error is a list
			return fmt.Errorf("told %s", b)
		}
		if item := f.Payload.Data.Events; f.Type == "next" && item.Event != nil {
			err = w.take(item.Event.Sequence, item.Cursor)
		}
	}
	return err
}

// pull works through a subscription that begins at the cursor.
func (w *walker) pull(ctx context.Context) error {
	var sub struct{ ID string }
	if err := w.read(ctx, http.MethodPost, "subscriptions", `{"from":"`+w.cursor+`"}`, &sub); err != nil {
		return err
	}
	for {
		var work struct {
			Data []struct {
				Lease string
				Event placed
			}
		}
		if err := w.read(ctx, http.MethodPost, "subscriptions/"+sub.ID+"/pull", `{"max":200,"wait":"5s"}`, &work); err != nil {
			return err
		}
		var leases []string
		var enough error
		for _, l := range work.Data {
			leases = append(leases, l.Lease)
			if enough = w.take(l.Event.Sequence, l.Event.Cursor); enough != nil {
				break
			}
		}
		ack, err := json.Marshal(map[string]any{"leases": leases})
		if err != nil {
			return err
		}
		if err := w.read(ctx, http.MethodPost, "subscriptions/"+sub.ID+"/ack", string(ack), new(struct{})); err != nil || enough != nil {
			if enough != nil {
				// The next one begins at the cursor again, and this one would keep its lane.
				_ = w.read(ctx, http.MethodDelete, "subscriptions/"+sub.ID, "", new(struct{}))
			}
			return errors.Join(enough, err)
		}
	}
}

// One consumer reads one log through every door, changing them at random places, while the server is killed at random
// moments and comes back: every event once by its cursor, in order.
func TestWalkThroughEveryDoor(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := &walker{t: t, s: newRestarted(t), random: rand.New(rand.NewPCG(seed, 0)), cursor: "0", at: map[int]bool{}}
	for range walkKills {
		w.at[1+w.random.IntN(walkEvents)] = true
	}
	const batch = 2000
	for range walkEvents / batch {
		w.s.append(batch)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	doors := []struct {
		name string
		most int // how many events it is good for in a reasonable time
		walk func(context.Context) error
	}{
		{"poll", 8000, w.poll}, {"sse", 8000, w.sse}, {"ws", 5000, w.ws}, {"grpc", 8000, w.grpc}, {"graphql", 2000, w.graphql}, {"pull", 1000, w.pull},
	}
	through, broken := map[string]int{}, 0
	for i := 0; w.last < walkEvents; i++ {
		door := doors[w.random.IntN(len(doors))]
		if i < len(doors) {
			door = doors[i] // each at least once
		}
		w.left = 1 + w.random.IntN(door.most)
		before := w.last
		leg, stop := context.WithTimeout(ctx, time.Minute)
		err := door.walk(leg)
		late := leg.Err() != nil
		stop()
		through[door.name] += w.last - before
		if !errors.Is(err, errEnough) {
			t.Logf("%s after %d: %v", door.name, w.last, err)
			broken++
		}
		if late {
			t.Fatalf("%s has brought nothing more after event %d", door.name, w.last)
		}
		w.restarting.Wait()
	}
	t.Logf("events by door: %v; %d ways were cut by a server that died", through, broken)
	for _, door := range doors {
		if through[door.name] == 0 {
			t.Errorf("nothing came by %s", door.name)
		}
	}
	if broken == 0 {
		t.Error("no server died under the walker")
	}
}
