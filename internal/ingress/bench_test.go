package ingress_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkRequest takes a POST of 1 KB, whose body is read and answered with 70 bytes, with both servers. What the client does of
// it is counted, and is the same: it allocates nothing.
func BenchmarkRequest(b *testing.B) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			b.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 70))
	}
	text := []byte(strings.Replace(request("/in/x", strings.Repeat("y", 1024)), "\r\n", "\r\nAuthorization: Bearer 0123456789\r\nContent-Type: application/json\r\n", 1))
	for _, c := range []struct {
		name string
		addr func(b *testing.B) net.Addr
	}{
		{"ingress", func(b *testing.B) net.Addr { _, a := serve(b, "tcp", handler); return a }},
		{"net-http", func(b *testing.B) net.Addr { return reference(b, "tcp", handler) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			address := c.addr(b)
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", address.String())
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				answer := make([]byte, 4096)
				for pb.Next() {
					if _, err := conn.Write(text); err != nil {
						b.Error(err)
						return
					}
					// An answer this small comes whole.
					if n, err := conn.Read(answer); err != nil || !bytes.HasSuffix(answer[:n], []byte("xxxxx")) {
						b.Errorf("%q, %v", answer[:n], err)
						return
					}
				}
			})
		})
	}
}
