package httpapi

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/klauspost/compress/gzip"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/overload"
)

// left answers how much of a share can still be taken.
func left(s overload.Share) (n int64) {
	for step := int64(1) << 40; step > 0; step /= 2 {
		for s.Take(step) {
			n += step
		}
	}
	s.Give(n)
	return n
}

// What a body takes grows with what has come of it, and with what has been unpacked of it, and is given back whole.
func TestMemoryGrows(t *testing.T) {
	const most = 8 << 20
	for _, tc := range []struct {
		name     string
		declared int64
		zipped   bool
	}{{"declared", most, false}, {"without a length", -1, false}, {"packed", -1, true}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var room overload.Room
				room.Set(1 << 30)
				share := room.Of(eventhose.Principal{KeyID: "key_1", Tenant: "acme"})
				all := left(share)
				in, out := io.Pipe()
				read, write, flush := io.Reader(in), io.Writer(out), func() error { return nil }
				if tc.zipped {
					z := gzip.NewWriter(out)
					write, flush = z, z.Flush
				}
				m := memory{share: share}
				done := make(chan error)
				var body []byte
				go func() {
					if tc.zipped {
						unpacked, err := gzip.NewReader(in)
						if err != nil {
							done <- err
							return
						}
						read = unpacked
					}
					var err error
					body, err = m.read(read, tc.declared, most)
					done <- err
				}()
				for sent := 1; sent <= most; sent *= 2 {
					n := sent - sent/2
					if _, err := write.Write(bytes.Repeat([]byte("x"), n)); err != nil {
						t.Fatal(err)
					}
					if err := flush(); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if took := all - left(share); took < int64(sent) || took > max(firstMemory, 4*int64(sent)) {
						t.Errorf("of %d bytes that have come %d are taken", sent, took)
					}
				}
				if z, ok := write.(*gzip.Writer); ok {
					z.Close()
				}
				out.Close()
				if err := <-done; err != nil || len(body) != most || bytes.Count(body, []byte("x")) != most {
					t.Errorf("%d bytes, %v", len(body), err)
				}
				m.give()
				if left(share) != all {
					t.Errorf("of %d %d are given back", all, left(share))
				}
			})
		})
	}
}

// Bodies of all lengths come whole, however they arrive; too long ones and such as there is no room for are told from each other.
func TestMemoryHoldsBodies(t *testing.T) {
	var room overload.Room
	room.Set(32 << 20)
	share := room.Of(eventhose.Principal{KeyID: "key_1"})
	all := left(share)
	for _, n := range []int{1, 2, 1023, 1024, 1025, 16383, 16384, 16385, 65536, 100_000, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20} {
		sent := make([]byte, n)
		for i := range sent {
			sent[i] = byte(i % 251)
		}
		for _, limit := range []int{n - 1, n, n + 1, 4 << 20} {
			for how, arriving := range map[string]func(io.Reader) io.Reader{
				"at once": func(r io.Reader) io.Reader { return r }, "with the end": iotest.DataErrReader, "by halves": iotest.HalfReader,
			} {
				for _, declared := range []int{n, -1} {
					if declared > limit {
						continue // which is refused before
					}
					m := memory{share: share}
					got, err := m.read(arriving(bytes.NewReader(sent)), int64(declared), int64(limit))
					if n > limit && !errors.Is(err, errTooLong) || n <= limit && (err != nil || !bytes.Equal(got, sent)) {
						t.Errorf("%d bytes %s, declared as %d, at most %d: %d bytes, %v", n, how, declared, limit, len(got), err)
					}
					m.give()
				}
			}
		}
	}
	m := memory{share: share}
	if _, err := m.read(bytes.NewReader(make([]byte, all)), -1, 2*all); !errors.Is(err, errNoRoom) {
		t.Errorf("more than there is room for: %v", err)
	}
	m.give()
	broken := errors.New("broken")
	if _, err := m.read(iotest.ErrReader(broken), 100, 1000); !errors.Is(err, broken) {
		t.Errorf("a broken body: %v", err)
	}
	m.give()
	if left(share) != all {
		t.Errorf("of %d %d are given back", all, left(share))
	}
}
