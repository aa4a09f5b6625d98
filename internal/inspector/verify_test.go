package inspector

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/eventhose/eventhose"
)

// Who has left waits for no turn to be decompressed.
func TestVerifyEndsWithItsRequest(t *testing.T) {
	d := &Door{unpacking: make(chan struct{}, 1)}
	d.unpacking <- struct{}{} // another's turn, which does not end
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	signature, signed := d.verify(ctx, &eventhose.Inspector{Secret: "whsec_bm8tc2VjcmV0LW9mLWFueWJvZHkteWV0Li4u"}, http.Header{"Content-Encoding": {"gzip"}}, []byte("body"), 100)
	if !strings.HasPrefix(signature, eventhose.SignatureFailed) || string(signed) != "body" || len(d.unpacking) != 1 {
		t.Errorf("%q, %q, %d are at work", signature, signed, len(d.unpacking))
	}
}
