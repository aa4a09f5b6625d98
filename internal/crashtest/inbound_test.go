package crashtest

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

const (
	inboundSecret = "a-secret-of-the-flood"
	floodSenders  = 8
	floodRounds   = 3
	floodAcked    = 300 // of each round, before the server is killed
)

// flood is what the senders of a provider know.
type flood struct {
	url    string
	mu     sync.Mutex
	acked  map[string]bool
	enough chan struct{}
	left   int
}

// deliver sends one webhook and answers whether it was taken.
func (f *flood) deliver(ctx context.Context, c *http.Client, id string) bool {
	body := fmt.Appendf(nil, `{"id":%q,"pad":"%0200d"}`, id, 0)
	mac := hmac.New(sha256.New, []byte(inboundSecret))
	mac.Write(body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, bytes.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	req.Header.Set("X-GitHub-Delivery", id)
	res, err := c.Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// send delivers one webhook after another, and each that was not taken once more, as providers do, until ctx ends.
func (f *flood) send(ctx context.Context, prefix string) {
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("%s-%d", prefix, n)
		taken := f.deliver(ctx, c, id)
		if !taken || n%5 == 0 {
			taken = f.deliver(ctx, c, id) || taken
		}
		if !taken {
			continue
		}
		f.mu.Lock()
		f.acked[id] = true
		if f.left--; f.left == 0 {
			close(f.enough)
		}
		f.mu.Unlock()
	}
}

// Every webhook that was answered 200 is in the log once, however the server ended.
func TestKillDuringFlood(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := &server{t: t, data: filepath.Join(t.TempDir(), "data"), addr: freeAddr(t)}
	s.start()
	defer func() { s.kill() }()
	c, err := client.New("http://"+s.addr, adminKey)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.up(ctx, c)
	source, err := c.Tenant(tenant).CreateSource(ctx, eventhose.Source{Provider: "github", Secrets: []eventhose.Secret{inboundSecret}})
	if err != nil {
		t.Fatal(err)
	}
	f := &flood{url: source.URL, acked: map[string]bool{}}
	for round := range floodRounds {
		f.enough, f.left = make(chan struct{}), floodAcked
		sending, stop := context.WithCancel(ctx)
		var senders sync.WaitGroup
		for i := range floodSenders {
			senders.Go(func() { f.send(sending, fmt.Sprintf("r%d-s%d", round, i)) })
		}
		select {
		case <-f.enough:
		case <-ctx.Done():
			t.Error("the flood is not taken")
		}
		s.kill() // while they send
		stop()
		senders.Wait()
		s.start()
		s.up(ctx, c)
	}
	seen := map[string]int{}
	for after := (eventhose.Cursor{}); ; {
		page, err := c.Tenant(tenant).Read(ctx, client.ReadOptions{After: after, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			seen[e.ID]++
			if e.Scope != string(source.ID) || !bytes.Contains(e.Data, []byte(e.ID)) {
				t.Errorf("%s of %s holds %s", e.ID, e.Scope, e.Data)
			}
		}
		if after = page.Cursor; !page.HasMore {
			break
		}
	}
	for id := range f.acked {
		if seen[id] == 0 {
			t.Errorf("%s was answered 200 and is lost", id)
		}
	}
	for id, n := range seen {
		if n > 1 {
			t.Errorf("%s is in the log %d times", id, n)
		}
	}
	t.Logf("%d answered 200, %d in the log", len(f.acked), len(seen))
}
