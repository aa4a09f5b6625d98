package bench

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"time"

	"github.com/eventhose/eventhose"
)

// Webhooks of a provider, signed as Stripe does it, are sent in turns to a source, which verifies them and has them on disk before
// it says 200, and to a handler that reads the body and says 200.

const (
	basePlainHandler = "plain-handler"
	inboundSecret    = "whsec_0123456789abcdef0123456789abcdef"
	timeDigits       = 10
	// blankSignature is the header in which each request's signature is written.
	blankSignature = "Stripe-Signature: t=0000000000,v1=0000000000000000000000000000000000000000000000000000000000000000"
)

// signed is where in a request its signature is, and what it is made with.
type signed struct {
	mac                   hash.Hash
	time, signature, body int
	sum                   []byte
}

func newSigned(secret string, request []byte, body int) *signed {
	at := bytes.Index(request, []byte(blankSignature)) + len("Stripe-Signature: t=")
	return &signed{mac: hmac.New(sha256.New, []byte(secret)), time: at, signature: at + timeDigits + len(",v1="), body: body}
}

// sign writes the signature of a request as it is now.
func (s *signed) sign(request []byte, now time.Time) {
	digits(request[s.time:][:timeDigits], uint64(now.Unix()))
	s.mac.Reset()
	s.mac.Write(request[s.time:][:timeDigits])
	s.mac.Write([]byte("."))
	s.mac.Write(request[s.body:])
	s.sum = s.mac.Sum(s.sum[:0])
	hex.Encode(request[s.signature:], s.sum)
}

func (b *bench) inbound(ctx context.Context, r *Result) (err error) {
	g, err := b.rig(ctx)
	if err != nil {
		return err
	}
	tenant := g.server.client.Tenant("default")
	source, err := tenant.CreateSource(ctx, eventhose.Source{Provider: "stripe", Name: "eventhose bench", Secrets: []eventhose.Secret{inboundSecret}})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, tenant.DeleteSource(context.WithoutCancel(ctx), source.ID))
	}()
	order := func(d time.Duration) loadOrder {
		o := g.order(0, d)
		o.Connections, o.Batch, o.IDs, o.Secret, o.Types = producers, 1, "evt_", inboundSecret, []string{"charge.succeeded"}
		o.Path = "/in/" + string(source.ID)
		return o
	}
	// acknowledged counts what was answered 200 against what the log has got.
	acknowledged := func(ctx context.Context, o loadOrder, d time.Duration) (*side, error) {
		before, err := tenant.Head(ctx)
		if err != nil {
			return nil, err
		}
		s, err := g.appends(ctx, o, d)
		if err != nil {
			return nil, err
		}
		after, err := tenant.Head(ctx)
		if err != nil {
			return nil, err
		}
		s.lost = max(0, s.events-int64(after.Sequence-before.Sequence))
		s.duplicates = max(0, int64(after.Sequence-before.Sequence)-s.events)
		return s, nil
	}
	r.Baseline = basePlainHandler
	err = b.rounds(ctx, r,
		func(ctx context.Context, d time.Duration) (*side, error) {
			o := order(d)
			o.URL, o.Path, o.Nanos, o.First = g.receiverURL, plainPath, int64(d), g.next
			before, err := g.stats(ctx, nil)
			if err != nil {
				return nil, err
			}
			res, err := g.append(ctx, o)
			if err != nil {
				return nil, err
			}
			after, err := g.stats(ctx, nil)
			return &side{perSecond: res.perSecond(), events: res.Events, latency: res.Latency, cpu: map[string]int64{basePlainHandler: after.CPU - before.CPU}}, err
		},
		func(ctx context.Context, d time.Duration) (*side, error) { return acknowledged(ctx, order(d), d) })
	if err != nil {
		return err
	}
	// At half of that, each request at its time whatever comes back.
	o := order(b.round())
	o.Rate = r.EventsPerS / 2
	dir := g.dir
	if dir == "" {
		dir = b.Dir
	}
	p, err := startProbe(ctx, dir)
	if err != nil {
		return err
	}
	half, err := acknowledged(ctx, o, b.round())
	fsync, failed := p.close()
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	r.Lost, r.Duplicates = r.Lost+half.lost, r.Duplicates+half.duplicates
	p99, fsync99 := milliseconds(half.latency.quantile(.99)), milliseconds(fsync.quantile(.99))
	r.FsyncP99 = fsync99
	r.more("half_load_p50_ms", milliseconds(half.latency.quantile(.5)))
	r.more("half_load_p99_ms", p99)
	r.goal("ratio ≥ 0.7, and at half of that p99 ≤ 20 ms beyond the fsync's", r.Ratio >= 0.7 && p99 <= fsync99+20)
	return nil
}
