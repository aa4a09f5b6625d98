package inspector

import (
	"bufio"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eventhose/eventhose"
)

// A sender that stops within a body that is longer than is read does not hold its connection for ever.
func TestStalledBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inspectors := &counted{id: "ins_" + eventhose.InspectorID(eventhose.IDText([16]byte{}))}
		d, err := New(Options{Inspectors: inspectors})
		if err != nil {
			t.Fatal(err)
		}
		l, server := NewListener(), &http.Server{Handler: d}
		ended := make(chan error)
		go func() { ended <- server.Serve(l) }()
		conn, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		if _, err := fmt.Fprintf(conn, "POST %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", pathPrefix, inspectors.id, eventhose.MaxInspectedBody+1000,
			make([]byte, eventhose.MaxInspectedBody+1)); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != 200 || !r.Close || time.Since(started) > bodyTime {
			t.Errorf("%d, the last of its connection %v, after %v", r.StatusCode, r.Close, time.Since(started))
		}
		r.Body.Close()
		conn.Close()
		server.Close()
		if err := <-ended; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
}
