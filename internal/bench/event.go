package bench

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// An event's data carries which one it is and when it was sent, both of fixed width so that a prepared body is brought up
// to date in place, and then fields as JSON has them, which a compressor shortens to about a half:
//
//	{"n":"000000000042","sent":"1764000000000000000","field_0":"…",…}
const (
	marker     = `{"n":"`
	numberLen  = 12
	sentMarker = `","sent":"`
	sentLen    = 19
	dataHead   = len(marker) + numberLen + len(sentMarker) + sentLen
)

// appendData appends data of about size bytes. seed makes it different from others.
func appendData(b []byte, size, seed int) []byte {
	start := len(b)
	b = append(b, marker...)
	b = append(b, "000000000000"...)
	b = append(b, sentMarker...)
	b = append(b, "0000000000000000000"...)
	b = append(b, '"')
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := 0; len(b)-start < size-33; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = fmt.Appendf(b, `,"field_%02d":"%016x"`, i%100, x)
	}
	return append(b, '}')
}

// stamp brings data, which begins with the marker, up to date.
func stamp(data []byte, number int64, sent time.Time) {
	digits(data[len(marker):][:numberLen], uint64(number))
	digits(data[len(marker)+numberLen+len(sentMarker):][:sentLen], uint64(sent.UnixNano()))
}

func digits(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(n%10)
		n /= 10
	}
}

// stamps calls each for every event in a body.
func stamps(body []byte, each func(number int64, sent time.Time)) {
	for {
		i := bytes.Index(body, []byte(marker))
		if i < 0 || len(body) < i+dataHead {
			return
		}
		number, err1 := strconv.ParseUint(string(body[i+len(marker):][:numberLen]), 10, 63)
		sent, err2 := strconv.ParseInt(string(body[i+len(marker)+numberLen+len(sentMarker):][:sentLen]), 10, 64)
		if err1 == nil && err2 == nil {
			each(int64(number), time.Unix(0, sent))
		}
		body = body[i+dataHead:]
	}
}

// places answers where in a body its events' data begin.
func places(body []byte) (at []int) {
	for from := 0; ; {
		i := bytes.Index(body[from:], []byte(marker))
		if i < 0 {
			return at
		}
		at = append(at, from+i)
		from += i + dataHead
	}
}
