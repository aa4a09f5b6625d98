package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

func (p *program) triggerCommand() *cobra.Command {
	var data, contentType string
	var set []string
	var e eventhose.Event
	var count int
	var rate string
	var wait bool
	c := &cobra.Command{
		Use:   "trigger TYPE",
		Short: "Append an event",
		Long: `Append an event, and with --wait tell what becomes of it: a line for each subscription that it concerns, once each has
delivered it or set it aside. Exits with 1 if any has not delivered it. Those that are paused or disabled it tells as they are, and does not
wait for them. Nor for those that are pulled from, which those of listen are too; these need not have delivered it: when somebody pulls is not
the server's to say. With --rate it makes steady traffic: --count events, so many a second.`,
		Example: `  eventhose trigger order.paid --data @order.json
  eventhose trigger order.paid --data '{"amount": 4200}' --set customer.id=c_1 --wait
  eventhose trigger order.paid --count 1000 --rate 50/s
  jq -n '{a: 1}' | eventhose trigger order.paid --data - --event-key order-1`,
		Args: args(1, 1),
	}
	f := c.Flags()
	f.StringVar(&data, "data", "{}", "the payload: JSON, @file, or - for stdin")
	f.StringVar(&contentType, "content-type", "", "of a payload that is not JSON")
	f.StringArrayVar(&set, "set", nil, "set a member of the payload (a.b=1); the value is JSON, or else text")
	f.StringVar(&e.ID, "id", "", "the event's id; the same event twice is one event")
	f.StringVar(&e.Key, "event-key", "", "the ordering key")
	f.StringVar(&e.Version, "event-version", "", "the version of the payload's form")
	f.StringToStringVar(&e.Attributes, "attributes", nil, "attributes (a=1,b=2)")
	f.IntVar(&count, "count", 1, "append this many")
	f.StringVar(&rate, "rate", "", "append so many a second (10/s, 90/m), and not all at once")
	f.BoolVar(&wait, "wait", false, "wait for the deliveries to destinations")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		switch {
		case rate != "" && wait:
			return &usageError{what: "--rate and --wait exclude each other"}
		case rate == "" && (count < 1 || count > eventhose.MaxAppend):
			return &usageError{what: fmt.Sprintf("--count must be between 1 and %d, or with --rate %d", eventhose.MaxAppend, maxPaced)}
		case rate != "" && (count < 1 || count > maxPaced):
			return &usageError{what: fmt.Sprintf("--count must be between 1 and %d", maxPaced)}
		case count > 1 && e.ID != "":
			return &usageError{what: "--id and --count exclude each other: an id is one event's"}
		case len(set) > 0 && contentType != "":
			return &usageError{what: "--set and --content-type exclude each other: it sets members of JSON"}
		}
		payload, err := p.input("data", data, eventhose.MaxData)
		if err != nil {
			return err
		}
		if contentType == "" {
			payload = bytes.TrimSpace(payload)
		}
		if payload, err = setMembers(payload, set); err != nil {
			return err
		}
		e.Type, e.ContentType, e.Data = args[0], contentType, payload
		if rate != "" {
			return p.triggerPaced(ctx, t, e, count, rate)
		}
		placed, err := t.Append(ctx, slices.Repeat([]eventhose.Event{e}, count)...)
		if err != nil {
			return err
		}
		if !wait {
			return p.printPlacements(placed)
		}
		return p.waitFor(ctx, t, placed)
	})
}

// triggerPaced appends an event count times, so many a second.
func (p *program) triggerPaced(ctx context.Context, t *client.Tenant, e eventhose.Event, count int, rate string) error {
	perSecond, err := parseRate(rate)
	if err != nil {
		return err
	}
	if needs := float64(count-1) / perSecond; needs >= p.conn.timeout.Seconds() {
		return &usageError{what: fmt.Sprintf("%d events at that rate take %.0fs, which is longer than --timeout", count, needs), fix: fmt.Sprintf("--timeout %.0fs", needs+60)}
	}
	most := min(eventhose.MaxAppend, eventhose.MaxAppendBytes/max(1, len(e.Data)))
	return paced(ctx, perSecond, count, most, func(n int) error {
		placed, err := t.Append(ctx, slices.Repeat([]eventhose.Event{e}, n)...)
		if err != nil {
			return err
		}
		return p.printPlacements(placed)
	})
}

func (p *program) printPlacements(placed []eventhose.Placement) error {
	for _, at := range placed {
		err := p.print(at, func(w io.Writer) {
			note := ""
			if at.Duplicate {
				note = "\tduplicate"
			}
			fmt.Fprintf(w, "%s\t%d%s\n", oneLine(at.ID), at.Sequence, note)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// delivered is what --wait tells of one event.
type delivered struct {
	eventhose.Placement
	Deliveries []eventhose.Delivery `json:"deliveries"`
}

// waitFor prints each event once no delivery of it is pending, but for those that are not waited for.
func (p *program) waitFor(ctx context.Context, t *client.Tenant, placed []eventhose.Placement) error {
	setAside, held := 0, 0
	idle := unawaited{}
	waits := func(id eventhose.SubscriptionID) (bool, error) {
		why, err := idle.why(ctx, t, id)
		return why == "", err
	}
	for _, at := range placed {
		deliveries, pending := settled(ctx, t, at.ID, waits)
		for _, d := range deliveries {
			if pending == nil && d.State != eventhose.DeliveryDelivered {
				_, pending = idle.why(ctx, t, d.Subscription)
			}
		}
		err := p.print(delivered{at, deliveries}, func(w io.Writer) {
			switch {
			case len(deliveries) == 0 && pending != nil:
				fmt.Fprintf(w, "%s\t%d\n", oneLine(at.ID), at.Sequence)
			case len(deliveries) == 0:
				fmt.Fprintf(w, "%s\t%d\tconcerns no subscription\n", oneLine(at.ID), at.Sequence)
			}
			for _, d := range deliveries {
				note := ""
				if why := idle[d.Subscription]; why != "" && d.State != eventhose.DeliveryDelivered {
					note = " (" + why + ")"
				}
				fmt.Fprintf(w, "%s\t%d\t%s\t%s%s\n", oneLine(at.ID), at.Sequence, d.Subscription, deliveryText(d), note)
			}
		})
		if errors.Is(pending, context.DeadlineExceeded) {
			pending = p.goesOn(at.ID)
		}
		if err = errors.Join(pending, err); err != nil {
			return err
		}
		for _, d := range deliveries {
			why := idle[d.Subscription]
			switch {
			case d.State == eventhose.DeliveryDelivered:
			case d.State == string(eventhose.ParkedDead):
				setAside++
			case why == pulledFrom || why == deleted:
			case d.State == eventhose.DeliveryPending:
				held++
			default:
				setAside++
			}
		}
	}
	if setAside+held > 0 {
		return notDelivered(setAside, held)
	}
	return nil
}

// goesOn says that an event was not settled in time, and where to see what becomes of it.
func (p *program) goesOn(id string) *failure {
	fix := "eventhose events get " + oneLine(id)
	if p.conn.tenant != "default" {
		fix += " --tenant " + p.conn.tenant
	}
	return &failure{exit: exitTimeout, code: string(eventhose.CodeTimeout), fix: fix,
		what: "what becomes of " + oneLine(id) + " is not known within --timeout; its delivery goes on"}
}

// notDelivered says that some deliveries were set aside, and that some are pending at subscriptions that do not deliver now.
func notDelivered(setAside, held int) *failure {
	f := &failure{exit: exitFailure, code: "not_delivered", fix: "eventhose subscriptions parked SUBSCRIPTION"}
	var what []string
	switch {
	case setAside == 1:
		what = append(what, "1 delivery was set aside")
	case setAside > 0:
		what = append(what, fmt.Sprintf("%d deliveries were set aside", setAside))
	default:
		f.fix = "eventhose subscriptions resume SUBSCRIPTION"
	}
	const why = " held, since the subscription is paused or disabled"
	switch {
	case held == 1:
		what = append(what, "1 delivery is"+why)
	case held > 0:
		what = append(what, fmt.Sprintf("%d deliveries are", held)+why)
	}
	f.what = strings.Join(what, ", and ")
	return f
}

// unawaited says why deliveries to subscriptions are not waited for, of those that were asked for.
type unawaited map[eventhose.SubscriptionID]string

// Why they are not, beside the states paused and disabled.
const (
	pulledFrom = "pulled"
	deleted    = "deleted"
)

// why answers "" for a subscription that is waited for; it is asked about again, since it may be disabled meanwhile.
func (u unawaited) why(ctx context.Context, t *client.Tenant, id eventhose.SubscriptionID) (string, error) {
	if why := u[id]; why != "" {
		return why, nil
	}
	s, err := t.Subscription(ctx, id)
	switch {
	case eventhose.CodeOf(err) == eventhose.CodeNotFound:
		u[id] = deleted
	case err != nil:
		return "", err
	case s.Pull():
		u[id] = pulledFrom
	case s.State != eventhose.StateActive:
		u[id] = string(s.State)
	}
	return u[id], nil
}

// settled asks until every delivery of an event that is waited for is delivered or set aside, at growing intervals up to half a
// second. With an error come the deliveries as they were when it last knew.
func settled(ctx context.Context, t *client.Tenant, id string, waits func(eventhose.SubscriptionID) (bool, error)) (last []eventhose.Delivery, err error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-timer.C:
		}
		e, err := t.Event(ctx, "", id)
		if err != nil {
			return last, err
		}
		last = e.Deliveries
		pending := false
		for _, d := range e.Deliveries {
			if pending || d.State != eventhose.DeliveryPending && d.State != string(eventhose.ParkedLeased) {
				continue
			}
			if pending, err = waits(d.Subscription); err != nil {
				return last, err
			}
		}
		if !pending {
			return last, nil
		}
		timer.Reset(pause)
	}
}

// deliveryText is "ok 200 41ms", or the state and how the last attempt ended.
func deliveryText(d eventhose.Delivery) string {
	if len(d.Attempts) == 0 {
		return d.State
	}
	s := attemptText(d.Attempts[0])
	if d.State != eventhose.DeliveryDelivered {
		s = d.State + ": " + s
	}
	if next := d.Attempts[0].Next; !next.IsZero() {
		s += ", next try " + stamp(next)
	}
	return s
}

// setMembers sets members of a JSON object by their path. Without any the payload stays as it is, byte for byte.
func setMembers(payload []byte, set []string) ([]byte, error) {
	if len(set) == 0 {
		return payload, nil
	}
	root, ok := oneValue(payload)
	if !ok {
		return nil, &usageError{what: "--data is not JSON, so that --set cannot change it"}
	}
	for _, s := range set {
		path, text, ok := strings.Cut(s, "=")
		if !ok || path == "" {
			return nil, &usageError{what: "--set must be path=value", fix: "--set amount=5"}
		}
		value, isJSON := oneValue([]byte(text))
		if !isJSON {
			value = text
		}
		at := root
		names := strings.Split(path, ".")
		for i, name := range names {
			object, ok := at.(map[string]any)
			if !ok {
				where := strings.Join(names[:i], ".")
				if where == "" {
					where = "the payload"
				}
				return nil, &usageError{what: fmt.Sprintf("--set %s: %s is not an object", path, where)}
			}
			if i == len(names)-1 {
				object[name] = value
			} else if object[name] == nil {
				object[name] = map[string]any{}
			}
			at = object[name]
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(root); err != nil {
		return nil, fmt.Errorf("encoding the payload: %w", err)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// oneValue reads text that is one JSON value and nothing else. Its numbers stay as they are written.
func oneValue(text []byte) (value any, ok bool) {
	if !json.Valid(text) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return value, d.Decode(&value) == nil
}
