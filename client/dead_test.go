package client_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eventhose/eventhose/client"
)

// relay passes connections on to a server. die has the first of them carry nothing any more, without ending it: the network is gone.
func relay(t *testing.T, server string) (address string, die func()) {
	t.Helper()
	on, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := make(chan struct{})
	var crew sync.WaitGroup
	carry := func(to, from net.Conn, dead <-chan struct{}) {
		defer to.Close()
		for b := make([]byte, 16<<10); ; {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			select {
			case <-dead:
				continue
			default:
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	crew.Go(func() {
		for first := true; ; first = false {
			here, err := on.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", server)
			if err != nil {
				here.Close()
				continue
			}
			var dying <-chan struct{}
			if first {
				dying = dead
			}
			crew.Go(func() { carry(there, here, dying) })
			crew.Go(func() { carry(here, there, dying) })
		}
	})
	t.Cleanup(func() {
		on.Close()
		crew.Wait()
	})
	return on.Addr().String(), sync.OnceFunc(func() { close(dead) })
}

// A connection that carries several requests is given up when the network has lost it: the next stream is not asked for over it.
func TestFollowGoesOnOverAnotherConnection(t *testing.T) {
	var n, second atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		if r.ProtoMajor == 2 {
			second.Add(1)
		}
		say(event(int(n.Add(1))))(w, r)
		<-r.Context().Done()
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	address, die := relay(t, server.Listener.Addr().String())
	c, err := client.New((&url.URL{Scheme: "https", Host: address}).String(), "ehk_test", client.WithSilence(300*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	c.Trust(roots)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	for e, err := range c.Tenant("acme").Follow(ctx, client.FollowOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.ID)
		if die(); len(got) == 2 {
			break
		}
	}
	if fmt.Sprint(got) != "[e1 e2]" || second.Load() != 2 {
		t.Errorf("got %v, %d streams over HTTP/2", got, second.Load())
	}
	server.CloseClientConnections()
}
