//go:build unix

package app_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
)

// How fast events come in, beside the limit: a bare file that takes the same bytes with the same fsyncs. Each iteration
// is one request of 64 producers that wait for its fsync; b.N requests in all, so compare with a fixed -benchtime such
// as 5000x, interleaved, and read the ratio of two runs that were near each other. cpu-µs/event is the whole process's,
// load included, and is steadier than the rate on a machine that others use.

const producers = 64

// kilobyte is about what a JSON event of 1 KB looks like to a compressor.
func kilobyte(i int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"order":%d`, i)
	for j := 0; b.Len() < 990; j++ {
		fmt.Fprintf(&b, `,"field_%d":"%016x"`, j, uint64(i*31+j)*0x9e3779b97f4a7c15)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// produce makes b.N requests of size events from all producers and reports the rates.
func produce(b *testing.B, size int, producer func(p int) (request func(n int) error)) {
	requests := make([]func(int) error, producers)
	for p := range requests {
		requests[p] = producer(p)
	}
	var next atomic.Int64
	var all sync.WaitGroup
	b.ReportAllocs()
	before := processorTime()
	b.ResetTimer()
	for _, request := range requests {
		all.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				if err := request(int(n)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	events := float64(b.N * size)
	b.ReportMetric(events/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(processorTime()-before)/1e3/events, "cpu-µs/event")
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBareFile is the limit: one writer gathers what waits and does one write and one fsync for it.
func BenchmarkBareFile(b *testing.B) {
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprintf("events=%d", size), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			type write struct {
				data []byte
				done chan error
			}
			writes := make(chan write, producers)
			var writer sync.WaitGroup
			writer.Go(func() {
				var group []byte
				var waiting []chan error
				for w := range writes {
					group, waiting = append(group[:0], w.data...), append(waiting[:0], w.done)
					for more := true; more; {
						select {
						case w, more = <-writes:
							if more {
								group, waiting = append(group, w.data...), append(waiting, w.done)
							}
						default:
							more = false
						}
					}
					_, err := f.Write(group)
					if err == nil {
						err = f.Sync()
					}
					for _, done := range waiting {
						done <- err
					}
				}
			})
			produce(b, size, func(p int) func(int) error {
				var data []byte
				for i := range size {
					data = append(data, kilobyte(p*size+i)...)
				}
				done := make(chan error)
				return func(int) error {
					writes <- write{data, done}
					return <-done
				}
			})
			close(writes)
			writer.Wait()
		})
	}
}

// anyTenant lets every tenant have a log.
type anyTenant struct{}

func (anyTenant) Tenant(_ context.Context, id eventhose.TenantID) (eventhose.Tenant, error) {
	return eventhose.Tenant{ID: id}, nil
}

func (anyTenant) Tenants(context.Context, eventhose.TenantID, int) ([]eventhose.Tenant, error) {
	return nil, nil
}

// BenchmarkAppend is the log and the store in process.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 100} {
		for _, ids := range []string{"ours", "theirs"} {
			b.Run(fmt.Sprintf("events=%d/ids=%s", size, ids), func(b *testing.B) {
				st, err := embedded.Open(b.TempDir(), embedded.Options{})
				if err != nil {
					b.Fatal(err)
				}
				log := eventlog.New(st, anyTenant{}, eventlog.Options{})
				produce(b, size, func(p int) func(int) error {
					events := make([]eventhose.Event, size)
					for i := range events {
						events[i] = eventhose.Event{Type: "order.paid", Data: kilobyte(p*size + i)}
					}
					return func(n int) error {
						if ids == "theirs" {
							for i := range events {
								events[i].ID = clientID(n*size + i)
							}
						}
						_, err := log.Append(context.Background(), "default", events...)
						return err
					}
				})
				_ = log.Close()
				if err := st.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// clientID looks like a random id, which is the worst order for an index.
func clientID(n int) string { return fmt.Sprintf("order-%016x", uint64(n)*0x9e3779b97f4a7c15) }

// BenchmarkAppendHTTP is the whole server behind its socket, the access log on; the load writes prepared bytes.
func BenchmarkAppendHTTP(b *testing.B) {
	for _, size := range []int{1, 100} {
		for _, form := range []string{"json", "ndjson", "json/ids=theirs"} {
			b.Run(fmt.Sprintf("events=%d/%s", size, form), func(b *testing.B) {
				access, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
				if err != nil {
					b.Fatal(err)
				}
				defer access.Close()
				server, err := app.New(app.Options{Listen: "127.0.0.1:0", Data: b.TempDir(), AdminKey: "key-of-the-benchmark",
					BackupDir: b.TempDir(), Logger: slog.New(slog.NewJSONHandler(access, nil))})
				if err != nil {
					b.Fatal(err)
				}
				if err := server.Start(b.Context()); err != nil {
					b.Fatal(err)
				}
				produce(b, size, func(p int) func(int) error { return connection(b, server.Addr(), p, size, form) })
				if err := server.Stop(context.Background()); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// connection answers a request maker over a connection of its own.
func connection(b *testing.B, addr string, p, size int, form string) func(int) error {
	const id = `"id":"order-0123456789abcdef",`
	var body []byte
	var ids []int // where the ids stand
	separator, kind := ",", "application/json"
	if form == "ndjson" {
		separator, kind = "\n", "application/x-ndjson"
	} else if size > 1 {
		body = append(body, '[')
	}
	for i := range size {
		if i > 0 {
			body = append(body, separator...)
		}
		body = append(body, `{"type":"order.paid",`...)
		if form == "json/ids=theirs" {
			ids = append(ids, len(body)+len(id)-18)
			body = append(body, id...)
		}
		body = append(append(append(body, `"data":`...), kilobyte(p*size+i)...), '}')
	}
	if form != "ndjson" && size > 1 {
		body = append(body, ']')
	}
	head := fmt.Sprintf("POST /v1/tenants/default/events HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer key-of-the-benchmark\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", addr, kind, len(body))
	for i := range ids {
		ids[i] += len(head)
	}
	body = append([]byte(head), body...)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	answers := bufio.NewReader(conn)
	return func(n int) error {
		for i, at := range ids {
			copy(body[at:], fmt.Sprintf("%016x", uint64(n*size+i)*0x9e3779b97f4a7c15))
		}
		if _, err := conn.Write(body); err != nil {
			return err
		}
		return readAnswer(answers)
	}
}

// readAnswer reads one answer that has a length, and wants a 202.
func readAnswer(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 202 ")) {
		return fmt.Errorf("%s", line)
	}
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte(http.CanonicalHeaderKey("content-length")+": ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(v)))
		}
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return err
}
