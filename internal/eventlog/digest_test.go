package eventlog

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/eventhose/eventhose"
)

// Digests are stored with events: they stay what they were.
func TestDigestStays(t *testing.T) {
	for want, e := range map[string]eventhose.Event{
		"4cf1eaeddcb88d68d6ff7cc02f78a3d5": {Type: "order.paid", Data: []byte(`{}`)},
		"24c018125fb1d8c33edfa628f5390128": {Type: "order.paid", Key: "k", Time: time.Unix(1700000000, 5).In(time.FixedZone("", 3600)), Version: "2", ContentType: "application/json",
			Attributes: map[string]string{"b": "2", "a": "1"}, Data: []byte(`{"a":1}`)},
	} {
		if d := digestOf(&e); hex.EncodeToString(d[:]) != want {
			t.Errorf("%x, want %s", d, want)
		}
	}
}
