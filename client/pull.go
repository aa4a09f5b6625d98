package client

import (
	"context"
	"net/http"
	"time"

	"github.com/eventhose/eventhose"
)

// Pull takes events of a pull subscription to work on, and waits for the first as long as p.Wait. Max 0 is 10, Lease 0
// eventhose.DefaultLease. Of large events come fewer than p.Max, as it says; the others are there for the next pull. What is not acknowledged before its lease ends is handed over again, to any worker.
// CodeConflict if the subscription has a destination.
func (t *Tenant) Pull(ctx context.Context, sub eventhose.SubscriptionID, p eventhose.Pull) ([]eventhose.Leased, error) {
	body, err := jsonBody(struct {
		Max   int                `json:"max,omitempty"`
		Wait  eventhose.Duration `json:"wait,omitempty"`
		Lease eventhose.Duration `json:"lease,omitempty"`
	}{p.Max, eventhose.Duration(p.Wait), eventhose.Duration(p.Lease)})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data []struct {
			Lease      string             `json:"lease"`
			Deliveries int                `json:"deliveries"`
			Until      time.Time          `json:"until"`
			Previous   eventhose.Sequence `json:"previous_sequence"`
			Replay     string             `json:"replay"`
			Event      wireEvent          `json:"event"`
		} `json:"data"`
	}
	err = t.c.do(ctx, request{method: http.MethodPost, path: t.subscription(sub, "pull"), body: body, contentType: "application/json", wait: p.Wait, into: &answer})
	if err != nil {
		return nil, err
	}
	list := make([]eventhose.Leased, len(answer.Data))
	for i := range answer.Data {
		d := &answer.Data[i]
		list[i] = eventhose.Leased{Lease: d.Lease, Event: d.Event.event(t.id), Deliveries: d.Deliveries, Until: d.Until, Previous: d.Previous, Replay: d.Replay}
	}
	return list, nil
}

// Ack says that the work of some leases is done, and answers those that were this worker's no more.
func (t *Tenant) Ack(ctx context.Context, sub eventhose.SubscriptionID, leases ...string) (lost []string, err error) {
	return t.answer(ctx, sub, "ack", struct {
		Leases []string `json:"leases"`
	}{leases})
}

// Nack gives leases back: their events are handed over again after delay, or if that is negative when the subscription's
// schedule says. The message is kept with the attempt. It answers the leases that were this worker's no more.
func (t *Tenant) Nack(ctx context.Context, sub eventhose.SubscriptionID, delay time.Duration, message string, leases ...string) (lost []string, err error) {
	body := struct {
		Leases  []string            `json:"leases"`
		Delay   *eventhose.Duration `json:"delay,omitempty"`
		Message string              `json:"message,omitempty"`
	}{Leases: leases, Message: message}
	if d := eventhose.Duration(delay); d >= 0 {
		body.Delay = &d
	}
	return t.answer(ctx, sub, "nack", body)
}

// Release gives back leases of a worker that stops: their events are handed over again at once, and the deliveries do not count.
// What failed is for Nack. It answers the leases that were this worker's no more.
func (t *Tenant) Release(ctx context.Context, sub eventhose.SubscriptionID, leases ...string) (lost []string, err error) {
	return t.answer(ctx, sub, "release", struct {
		Leases []string `json:"leases"`
	}{leases})
}

// Extend makes leases last for a time from now on, and answers those that were this worker's no more.
func (t *Tenant) Extend(ctx context.Context, sub eventhose.SubscriptionID, lease time.Duration, leases ...string) (lost []string, err error) {
	return t.answer(ctx, sub, "extend", struct {
		Leases []string           `json:"leases"`
		Lease  eventhose.Duration `json:"lease"`
	}{leases, eventhose.Duration(lease)})
}

func (t *Tenant) answer(ctx context.Context, sub eventhose.SubscriptionID, verdict string, body any) ([]string, error) {
	var answer struct {
		Lost []string `json:"lost"`
	}
	err := t.c.send(ctx, http.MethodPost, t.subscription(sub, verdict), body, &answer)
	return answer.Lost, err
}
