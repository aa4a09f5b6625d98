package sign_test

import (
	"testing"
	"time"

	"github.com/eventhose/eventhose/sign"
)

// BenchmarkAppendSignatures signs 1 KB with one secret.
func BenchmarkAppendSignatures(b *testing.B) {
	secret, body, at := sign.NewSecret(), make([]byte, 1<<10), time.Unix(1764000000, 0)
	dst := make([]byte, 0, 64)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = sign.AppendSignatures(dst[:0], "evt_0123456789abcdef", at, body, secret)
	}
}
