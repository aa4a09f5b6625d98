package embedded

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func BenchmarkCodec(b *testing.B) {
	records := make([]record, 64)
	for i := range records {
		records[i] = record{event: eventhose.Event{Tenant: "t", Sequence: sequence(i + 1), ID: "x", Type: "order.paid", Time: moment(1), Appended: moment(1), Data: kilobyte(i)}}
	}
	value := encodeBatch(records)
	for name, do := range map[string]func() error{
		"encode": func() error { encodeBatch(records); return nil },
		"decode": func() error { _, err := decodeBatch("t", value); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
			perSecond(b, b.N*len(records))
		})
	}
}

// BenchmarkLayout writes events of 1 KB in groups of 4,000, each iteration one group, and tells what becomes of each byte of
// data: written (log, tables and compactions together) and left on the disk after Close. "values" is the layout that was not
// chosen, one value for each event, on the same database with the same options.
func BenchmarkLayout(b *testing.B) {
	const size = 4000
	var data [size][]byte
	for i := range data {
		data[i] = kilobyte(i)
	}
	for _, kind := range []string{"batches/ids=ours", "batches/ids=theirs", "values"} {
		b.Run(kind, func(b *testing.B) {
			dir := b.TempDir()
			s, err := Open(dir, Options{})
			if err != nil {
				b.Fatal(err)
			}
			bytes, n := 0, 0
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				events := make([]store.NewEvent, size)
				for i := range events {
					events[i].Event = eventhose.Event{Tenant: "t", Sequence: sequence(n + 1), Type: "order.paid", Time: moment(1), Appended: moment(1), Data: data[i]}
					if kind != "batches/ids=ours" {
						events[i].Event.ID = fmt.Sprintf("order-%016x", uint64(n)*0x9e3779b97f4a7c15)
					}
					n++
					bytes += len(data[i])
				}
				if kind != "values" {
					if _, err := s.Append(context.Background(), []store.Append{{Tenant: "t", Events: events}}); err != nil {
						b.Fatal(err)
					}
					continue
				}
				group := s.db.NewBatch()
				for i := range events {
					e := &events[i].Event
					_ = group.Set(batchKey("t", e.Sequence), encodeBatch([]record{{event: *e}}), nil)
				}
				if err := s.commit(group, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			perSecond(b, n)
			m := s.db.Metrics()
			written := m.WAL.BytesWritten
			for _, l := range m.Levels {
				written += l.TableBytesFlushed + l.TableBytesCompacted
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			left := int64(0)
			_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, _ error) error {
				if info, err := d.Info(); err == nil && !d.IsDir() {
					left += info.Size()
				}
				return nil
			})
			b.ReportMetric(float64(written)/float64(bytes), "written/B")
			b.ReportMetric(float64(left)/float64(bytes), "left/B")
		})
	}
}
