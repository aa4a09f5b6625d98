package embedded

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/row"
	"github.com/eventhose/eventhose/internal/store"
)

// records of every shape that the codec knows.
func sampleRecords() []record {
	var rs []record
	for i := range 12 {
		e := eventhose.Event{Tenant: "t", Sequence: eventhose.Sequence(100 + i), ID: fmt.Sprint("id", i), Type: "a.b", Appended: moment(i / 3), Time: moment(i / 3)}
		r := record{event: e, parent: "p"}
		switch i {
		case 1:
			r.generated, r.random = true, 0xfedcba9876543210
			r.event.ID = eventhose.EventID(e.Sequence, r.random)
		case 2:
			r.event.Scope, r.event.Key, r.event.Version, r.event.ContentType = "scope", "key", "v1", "text/plain"
		case 3:
			r.event.Attributes = map[string]string{"b": "2", "a": "1", "": ""}
		case 4:
			r.event.Data = bytes.Repeat([]byte("x"), 5000)
		case 5:
			r.event.Erased = true
		case 6:
			r.event.Origin = eventhose.Origin{Tenant: "child", Sequence: 7}
		case 7:
			r.parentSeq = 1 << 40
		case 8:
			r.event.Time = time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)
		case 9:
			r.event.Time, r.event.Appended = time.Time{}, time.Time{}
		case 10:
			r.event.Time = time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
		}
		rs = append(rs, r)
	}
	return rs
}

func TestBatchCodec(t *testing.T) {
	want := sampleRecords()
	value := encodeBatch(want)
	b, err := decodeBatch("t", value)
	if err != nil {
		t.Fatal(err)
	}
	if b.first != 100 || b.last() != 111 || !reflect.DeepEqual(b.records, want) {
		t.Fatalf("got  %+v\nwant %+v", b.records, want)
	}
	for i := range value { // every flipped bit is seen
		damaged := bytes.Clone(value)
		damaged[i] ^= 1 << (i % 8)
		if _, err := decodeBatch("t", damaged); err == nil {
			t.Fatalf("bit %d of byte %d is not seen", i%8, i)
		}
	}
	for i := range value {
		if _, err := decodeBatch("t", value[:i]); err == nil {
			t.Fatalf("%d bytes of %d are taken", i, len(value))
		}
	}
}

// TestBatchForms: both forms of a body are read, and bytes that the first releases wrote stay readable for ever.
func TestBatchForms(t *testing.T) {
	old, err := hex.DecodeString("0111e5a6a3670464017080010369643003612e6280a9a19a0d8094ef3a00011032547698badcfe03612e62002e0369643203612e620573636f7065036b" +
		"65790276310a746578742f706c61696e0090010369643303612e62030000016101310162013282a9a19a0d8094ef3a00")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := decodeBatch("t", old); err != nil || !reflect.DeepEqual(b.records, sampleRecords()[:4]) {
		t.Fatalf("version 1 reads as %+v, %v", b, err)
	}
	noise := make([]byte, 4096)
	for x, i := uint64(1), 0; i < len(noise); i++ {
		x = x*6364136223846793005 + 1442695040888963407
		noise[i] = byte(x >> 56)
	}
	large := bytes.Repeat([]byte("a"), maxPacked)
	for _, c := range []struct {
		data []byte
		form byte
	}{{noise, row.Version}, {bytes.Repeat([]byte("large "), 100), rowPacked}, {large, row.Version}, {nil, row.Version}} {
		want := []record{{event: eventhose.Event{Tenant: "t", Sequence: 1, ID: "i", Type: "a", Data: c.data}}}
		value := encodeBatch(want)
		b, err := decodeBatch("t", value)
		if err != nil || value[0] != c.form || !bytes.Equal(b.records[0].event.Data, c.data) {
			t.Errorf("%d bytes of data have form %d, want %d, and read as %v", len(c.data), value[0], c.form, err)
		}
	}
	// What no writer writes, though it is well formed: a few bytes that would take much memory.
	huge := append([]byte{rowPacked, 0, 0, 0, 0}, s2.Encode(nil, make([]byte, maxPacked+1))...)
	putChecksum(huge)
	if _, _, err := unpack(huge); err == nil {
		t.Errorf("%d bytes that unpack to more than %d are taken", len(huge), maxPacked)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add(encodeBatch(sampleRecords()))
	f.Add(encodeBatch(sampleRecords()[:1]))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, v := range [][]byte{value, sealBatch(value)} {
			b, err := decodeBatch("t", v)
			if err != nil {
				continue
			}
			again, err := decodeBatch("t", encodeBatch(b.records))
			if err != nil || len(again.records) != len(b.records) || again.first != b.first {
				t.Fatalf("written again it is %+v, %v", again, err)
			}
		}
	})
}

// sealBatch makes a fuzzer's bytes pass the checksum.
func sealBatch(body []byte) []byte {
	v := append([]byte{row.Version, 0, 0, 0, 0}, body...)
	if len(body)%2 == 1 {
		v[0] = rowPacked
	}
	putChecksum(v)
	return v
}

func TestRecordCodec(t *testing.T) {
	for _, want := range []store.Record{{Tenant: "t", Kind: "k", ID: "i", Version: 3, Value: []byte("v"), Expires: moment(1)}, {}} {
		got, err := decodeRecord(want.Tenant, want.Kind, want.ID, encodeRecord(&want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v (%v)\nwant %+v", got, err, want)
		}
	}
}

func FuzzRows(f *testing.F) {
	f.Add(encodeRecord(&store.Record{Value: []byte("v")}))
	f.Add(encodeHead(&logState{inc: 1, forks: []eventhose.Fork{{Incarnation: 2, At: 3}}}, 1, 2, 3))
	f.Fuzz(func(t *testing.T, value []byte) {
		_, _ = decodeTriedRun(value)
		_, _ = decodeRecord("t", "k", "i", value)
		_, _ = decodeTried(value)
		_, _ = decodeRemembered(value)
		_ = decodeHead(value, &logState{})
	})
}

// TestKeyOrder: ids come newest first, and a longer id is later than its beginning.
func TestKeyOrder(t *testing.T) {
	ids := []string{"b", "ab", "aa", "a", ""}
	for i := 1; i < len(ids); i++ {
		if bytes.Compare(attemptKey("t", "s", ids[i-1]), attemptKey("t", "s", ids[i])) >= 0 {
			t.Errorf("%q does not come before %q", ids[i-1], ids[i])
		}
		if id, ok := newestFirstID(appendNewestFirst(nil, ids[i])); !ok || id != ids[i] {
			t.Errorf("%q came back as %q", ids[i], id)
		}
	}
	if bytes.Compare(end(prefix(spaceBatch, "a", 0)), prefix(spaceBatch, "ab", 0)) > 0 {
		t.Error("one tenant's end lies within another's")
	}
}
