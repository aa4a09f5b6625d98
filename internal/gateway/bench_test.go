package gateway

import (
	"strings"
	"testing"
)

// BenchmarkVerify is what one webhook of a kilobyte costs, names included.
func BenchmarkVerify(b *testing.B) {
	for _, name := range []string{"stripe", "github", "standard", "discord", "sendgrid", "twilio"} {
		b.Run(name, func(b *testing.B) {
			s := senders()[name]
			key := s.keyOf(0)
			v, err := New(name, s.settingsOf(key), s.around)
			if err != nil {
				b.Fatal(err)
			}
			r, _ := s.send(message{key: key, at: testNow, body: []byte(`{"id":"evt_1","type":"charge.succeeded","created":1700000000,"data":{"object":{"id":"ch_1","note":"` + strings.Repeat("a", 900) + `"}}}`)})
			b.ReportAllocs()
			for b.Loop() {
				if verdict := v.Verify(b.Context(), r); verdict.Event == nil {
					b.Fatal(verdict.Rejection)
				}
			}
		})
	}
}
