package webhook

import (
	"net/netip"
	"net/url"
	"testing"

	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sinktest"
	"github.com/eventhose/eventhose/sign"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopback is a policy that allows 127.0.0.1 and nothing else of this machine.
func loopback() *egress.Policy {
	return egress.New(egress.Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
}

func newSink(t testing.TB, p *egress.Policy) *Sink {
	t.Helper()
	client := egress.NewClient(p, egress.ClientOptions{})
	t.Cleanup(client.Close)
	return New(p, client)
}

// subscription answers one that sends to a URL and signs with a new secret.
func subscription(to string) *eventhose.Subscription {
	return &eventhose.Subscription{
		ID: "sub_test", Tenant: "acme",
		Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: to, Signature: "v1"},
		Secrets:     []eventhose.LiveSecret{{Secret: eventhose.Secret(sign.NewSecret().Reveal())}},
	}
}

func TestConformance(t *testing.T) {
	policy := loopback()
	client := egress.NewClient(policy, egress.ClientOptions{})
	sinktest.Run(t, sinktest.Harness{
		Sink: New(policy, client),
		Subscription: func(address string, secrets []string) *eventhose.Subscription {
			sub := subscription("http://" + address + "/hook?" + url.Values{"token": secrets}.Encode())
			sub.Destination.Headers = map[string]eventhose.Secret{}
			for i, s := range secrets {
				sub.Destination.Headers["X-Secret-"+string(rune('A'+i))] = eventhose.Secret("Bearer " + s)
			}
			return sub
		},
		Scenarios: sinktest.HTTP(),
		Idle:      client.Close,
	})
}
