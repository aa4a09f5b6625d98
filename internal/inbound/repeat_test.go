package inbound_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
)

// sum is what providers write who sign with HMAC-SHA256.
func sum(content string) string { return hex.EncodeToString(rawSum(content)) }

func rawSum(content string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(content))
	return mac.Sum(nil)
}

// Two events that a provider tells in the same bytes are two in the log, and what is signed with a time is taken once.
func TestSameBytesTwice(t *testing.T) {
	const user = `{"list_folder":{"accounts":["dbid:AAH4f99T0taONIb-OurWxbNQ6ywGRopQngc"]},"delta":{"users":[12345678]}}`
	const space = `{"event":"spaceUpdated","space_id":"54650507","webhook_id":"7fa3ec74"}`
	const task = `{"event":"taskUpdated","task_id":"1","history_items":[{"id":"2800763136717140857"}]}`
	const file = `{"resource":{"id":"f1","type":"file"},"type":"file.updated"}`
	const base = `{"base":{"id":"app1"},"webhook":{"id":"ach1"},"timestamp":"2023-11-14T22:13:20.123Z"}`
	w := newWorld(t, nil)
	now := time.Now()
	frame := func(after time.Duration) []string {
		at := strconv.FormatInt(now.Add(after).Unix(), 10)
		return []string{"X-Frameio-Request-Timestamp", at, "X-Frameio-Signature", "v0=" + sum("v0:"+at+":"+file)}
	}
	airtable := `"d2hzZWNfOWYyYjdjNGQxZThhNjA1Mw=="` // of secret
	taken := 0
	for _, c := range []struct {
		what, source, body string
		requests           [][]string // the headers of each
		events             int
	}{
		{"Dropbox says twice that something has changed", `{"provider":"dropbox","secret":"` + secret + `"}`, user, [][]string{{"X-Dropbox-Signature", sum(user)}, {"X-Dropbox-Signature", sum(user)}}, 2},
		{"a space of ClickUp's is changed twice", `{"provider":"clickup","secret":"` + secret + `"}`, space, [][]string{{"X-Signature", sum(space)}, {"X-Signature", sum(space)}}, 2},
		{"a change of ClickUp's with an id is repeated", `{"provider":"clickup","secret":"` + secret + `"}`, task, [][]string{{"X-Signature", sum(task)}, {"X-Signature", sum(task)}}, 1},
		{"a file of Frame.io's is changed twice", `{"provider":"frameio","secret":"` + secret + `"}`, file, [][]string{frame(0), frame(time.Second)}, 2},
		{"a request of Frame.io's is sent again by whoever has seen it", `{"provider":"frameio","secret":"` + secret + `"}`, file, [][]string{frame(0), frame(0), frame(0)}, 1},
		{"a notification of Airtable's with a time of its own is repeated", `{"provider":"airtable","secret":` + airtable + `}`, base,
			[][]string{{"X-Airtable-Content-MAC", "hmac-sha256=" + sum(base)}, {"X-Airtable-Content-MAC", "hmac-sha256=" + sum(base)}}, 1},
		{"a scheme of one's own without an id", `{"provider":"generic","secret":"` + secret + `","scheme":{"header":"X-Sig"},"naming":{"type":["text:any"]}}`, user, [][]string{{"X-Sig", sum(user)}, {"X-Sig", sum(user)}}, 2},
	} {
		s := w.source(c.source)
		for _, headers := range c.requests {
			w.want(200, w.send("POST", s.URL, c.body, headers...))
		}
		if n := len(w.events()) - taken; n != c.events {
			t.Errorf("%s: %d events in the log, want %d", c.what, n, c.events)
		}
		taken = len(w.events())
	}
}

// What has no id is taken once after all, however many ask for it at a time.
func TestRetryTakesOnce(t *testing.T) {
	w := newWorld(t, nil)
	s := w.source(`{"provider": "dropbox", "secret": "a-typing-error"}`)
	const body = `{"delta":{"users":[1]}}`
	w.want(401, w.send("POST", s.URL, body, "X-Dropbox-Signature", sum(body)))
	var list struct{ Data []eventhose.Rejection }
	w.manage(200, "GET", "/sources/"+s.ID+"/rejections", "", &list)
	w.manage(200, "PATCH", "/sources/"+s.ID, fmt.Sprintf(`{"secrets": [%q]}`, secret), nil)
	retry := w.url + "/v1/tenants/default/sources/" + s.ID + "/rejections/" + list.Data[0].ID + "/retry"
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() { w.send("POST", retry, "", "Authorization", "Bearer "+adminKey) })
	}
	asking.Wait()
	if events := w.events(); len(events) != 1 || string(events[0].Data) != body {
		t.Errorf("%d events", len(events))
	}
}

// Providers use one id for what happens together: each of it is an event, and each is taken once.
func TestOneIDOfSeveralEvents(t *testing.T) {
	w := newWorld(t, nil)
	taken := 0
	for _, c := range []struct {
		what, source string
		headers      func(body string) []string
		bodies       []string
	}{
		// wp_hash of the webhook and the second.
		{"two orders of WooCommerce's in one second", `{"provider":"woocommerce","secret":"` + secret + `"}`,
			func(body string) []string {
				return []string{"X-WC-Webhook-Signature", base64.StdEncoding.EncodeToString(rawSum(body)), "X-WC-Webhook-Delivery-ID", "8f5b2d6c9a1e4f7083b6d5c2e9a1f470"}
			},
			[]string{`{"id":727,"status":"completed"}`, `{"id":728,"status":"completed"}`}},
		{"a broadcast of Viber's that two users get", `{"provider":"viber","secret":"` + secret + `"}`,
			func(body string) []string { return []string{"X-Viber-Content-Signature", sum(body)} },
			[]string{`{"event":"delivered","timestamp":1457764197627,"message_token":4912661846655238145,"user_id":"01234567890A="}`,
				`{"event":"delivered","timestamp":1457764197627,"message_token":4912661846655238145,"user_id":"98765432109B="}`}},
		{"a change of ClickUp's that is told as two events", `{"provider":"clickup","secret":"` + secret + `"}`,
			func(body string) []string { return []string{"X-Signature", sum(body)} },
			[]string{`{"event":"taskUpdated","task_id":"1","history_items":[{"id":"2800787326392370170","field":"status"}]}`,
				`{"event":"taskStatusUpdated","task_id":"1","history_items":[{"id":"2800787326392370170","field":"status"}]}`}},
		{"a message of Postmark's that two get in one second", `{"provider":"postmark","secret":"user:password"}`,
			func(string) []string { return []string{"Authorization", "Basic dXNlcjpwYXNzd29yZA=="} },
			[]string{`{"RecordType":"Delivery","MessageID":"883953f4","Recipient":"a@example.com","DeliveredAt":"2026-03-01T10:00:00Z"}`,
				`{"RecordType":"Delivery","MessageID":"883953f4","Recipient":"b@example.com","DeliveredAt":"2026-03-01T10:00:00Z"}`}},
		{"links of a message of Postmark's that a scanner opens", `{"provider":"postmark","secret":"user:password"}`,
			func(string) []string { return []string{"Authorization", "Basic dXNlcjpwYXNzd29yZA=="} },
			[]string{`{"RecordType":"Click","MessageID":"883953f4","Recipient":"a@example.com","ReceivedAt":"2026-03-01T10:00:01Z","OriginalLink":"https://example.com/1"}`,
				`{"RecordType":"Click","MessageID":"883953f4","Recipient":"a@example.com","ReceivedAt":"2026-03-01T10:00:01Z","OriginalLink":"https://example.com/2"}`}},
		{"links of a message of Mandrill's that a scanner opens", `{"provider":"mandrill","secret":"` + secret + `","public_url":"https://in.example.com/m"}`,
			func(body string) []string {
				events, _ := url.QueryUnescape(strings.TrimPrefix(body, "mandrill_events="))
				mac := hmac.New(sha1.New, []byte(secret))
				mac.Write([]byte("https://in.example.com/mmandrill_events" + events))
				return []string{"X-Mandrill-Signature", base64.StdEncoding.EncodeToString(mac.Sum(nil)), "Content-Type", "application/x-www-form-urlencoded"}
			},
			[]string{"mandrill_events=" + url.QueryEscape(`[{"event":"click","ts":1700000000,"_id":"m1","url":"https://example.com/1"}]`),
				"mandrill_events=" + url.QueryEscape(`[{"event":"click","ts":1700000000,"_id":"m1","url":"https://example.com/2"}]`)}},
		{"what a webhook of GitLab's brought about in GitLab", `{"provider":"gitlab","secret":"plain-token-1"}`,
			func(string) []string {
				return []string{"X-Gitlab-Token", "plain-token-1", "X-Gitlab-Event-UUID", "13792a34-cac6-4fda-95a8-c58e00a3954e"}
			},
			[]string{`{"object_kind":"pipeline","object_attributes":{"id":31,"status":"pending"}}`, `{"object_kind":"build","build_id":1977}`}},
	} {
		s := w.source(c.source)
		for _, body := range append(c.bodies, c.bodies...) {
			w.want(200, w.send("POST", s.URL, body, c.headers(body)...))
		}
		if n := len(w.events()) - taken; n != len(c.bodies) {
			t.Errorf("%s: %d events in the log, want %d", c.what, n, len(c.bodies))
		}
		taken = len(w.events())
	}
}
