package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

func (p *program) devCommand() *cobra.Command {
	var s serverFlags
	c := &cobra.Command{
		Use:   "dev",
		Short: "A server to try things with: one command, no configuration",
		Long: `A server to try things with. It keeps its log in a temporary directory unless --data names one, allows destinations on this
machine, and brings a receiver that verifies what it gets and shows it: an inspector ("eventhose inspect"). A first event is delivered to
it; then each event and each attempt is a line. If nobody named an address and the usual one is taken, it takes a free one.`,
		Example: "  eventhose dev\n  eventhose dev --data ./eventhose-data --listen 127.0.0.1:9000",
		Args:    args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.dev(c.Context(), &s, c.Flags().Changed("listen"))
		},
	}
	s.add(c.Flags(), "", "warn")
	return c
}

// devReceiverName marks the inspector and the subscription that dev makes, so that it finds them again in a kept data directory.
const devReceiverName = "eventhose dev: built-in receiver"

// firstDelivery bounds the wait for the first event to come round.
const firstDelivery = 30 * time.Second

func (p *program) dev(ctx context.Context, s *serverFlags, addressNamed bool) (failed error) {
	kept := s.data != ""
	if !kept {
		temporary, err := os.MkdirTemp("", "eventhose-dev-")
		if err != nil {
			return fmt.Errorf("make a temporary directory: %w", err)
		}
		defer func() { failed = errors.Join(failed, os.RemoveAll(temporary)) }()
		s.data = filepath.Join(temporary, "data")
	}
	if s.adminKey == "" {
		s.adminKey = "ehk_dev_" + strings.ToLower(rand.Text())
	}
	if !addressNamed && taken(s.listen) {
		fmt.Fprintf(p.err, "%s is taken; using a free port (--listen names one)\n", s.listen)
		s.listen = "127.0.0.1:0"
	}
	o, err := s.options(p)
	if err != nil {
		return err
	}
	o.AllowNetworks = append(o.AllowNetworks, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))

	r, w := newReceiver(), newWatch(p)
	o.Observe, o.Inspected = w.observe, r.observe
	a, err := app.New(o)
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	defer func() { failed = errors.Join(failed, a.Err(), p.stop(a, s.drain)) }()

	cl, err := client.New("http://"+a.Addr(), o.AdminKey, client.WithUserAgent("eventhose-dev/"+p.version))
	if err != nil {
		return err
	}
	defer cl.Close()
	log := cl.Tenant("default")
	inspector, err := devInspector(ctx, log)
	if err != nil {
		return fmt.Errorf("make the receiver: %w", err)
	}
	r.expect(inspector.ID, inspector.Destination)
	secret, err := subscribe(ctx, log, inspector.Destination)
	if err != nil {
		return fmt.Errorf("subscribe the receiver: %w", err)
	}
	if _, err := log.UpdateInspector(ctx, inspector.ID, eventhose.InspectorPatch{Secret: &secret}); err != nil {
		return fmt.Errorf("give the receiver the signing secret: %w", err)
	}

	p.devBanner(devInfo{URL: "http://" + a.Addr(), Dashboard: "http://" + a.Addr() + "/ui/#key=" + url.QueryEscape(s.adminKey), Docs: "http://" + a.Addr() + "/docs", Key: s.adminKey, Receiver: inspector.URL, Secret: string(secret), Data: s.data}, kept)
	from, err := log.Head(ctx)
	if err != nil {
		return err
	}
	placed, err := log.Append(ctx, eventhose.Event{Type: "order.paid", Key: "order-1", Data: []byte(`{"order": "order-1", "amount": 4200, "currency": "EUR"}`)})
	if err != nil {
		return fmt.Errorf("append the first event: %w", err)
	}
	return w.run(ctx, log, from, r, placed[0].ID, a.Done())
}

// taken reports whether something listens on an address already.
func taken(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return true
	}
	l.Close()
	return false
}

// devInspector answers the inspector that dev delivers to: the one that is there in a kept data directory, which takes what comes though it
// was told to fail, or a new one.
func devInspector(ctx context.Context, log *client.Tenant) (client.Inspector, error) {
	for o := (client.ListOptions{}); ; {
		page, err := log.Inspectors(ctx, o)
		if err != nil {
			return client.Inspector{}, err
		}
		if i := slices.IndexFunc(page.Data, func(i client.Inspector) bool { return i.Name == devReceiverName }); i >= 0 {
			return log.UpdateInspector(ctx, page.Data[i].ID, eventhose.InspectorPatch{Status: new(200), Delay: new(eventhose.Duration), FailRate: new(float64)})
		}
		if o.After = page.Next; o.After == "" {
			return log.CreateInspector(ctx, eventhose.Inspector{Name: devReceiverName})
		}
	}
}

// subscribe makes the receiver's subscription, or in a kept data directory points the one that is there to it and has it go on. It
// answers the signing secret.
func subscribe(ctx context.Context, log *client.Tenant, url string) (eventhose.Secret, error) {
	d := eventhose.Destination{Type: eventhose.DestinationWebhook, URL: url}
	for o := (client.ListOptions{}); ; {
		page, err := log.Subscriptions(ctx, o)
		if err != nil {
			return "", err
		}
		for _, s := range page.Data {
			if s.Name != devReceiverName {
				continue
			}
			if _, err := log.UpdateSubscription(ctx, s.ID, eventhose.SubscriptionPatch{Destination: &d}); err != nil {
				return "", err
			}
			if _, err := log.Resume(ctx, s.ID); err != nil {
				return "", err
			}
			secrets, err := log.Secrets(ctx, s.ID)
			if err != nil {
				return "", fmt.Errorf("read the secret of %s: %w", s.ID, err)
			}
			return secrets[0].Secret, nil
		}
		if o.After = page.Next; o.After == "" {
			break
		}
	}
	s, err := log.CreateSubscription(ctx, client.NewSubscription{Name: devReceiverName, Destination: d})
	return s.Secret, err
}

type devInfo struct {
	URL string `json:"url"`
	// Dashboard signs the browser in: the key stands behind #, which no server sees.
	Dashboard string `json:"dashboard"`
	Docs      string `json:"docs"`
	Key       string `json:"key"`
	Receiver  string `json:"receiver"`
	Secret    string `json:"secret"`
	Data      string `json:"data"`
}

func (p *program) devBanner(d devInfo, kept bool) {
	if p.output != "text" {
		_ = writeJSON(p.out, map[string]devInfo{"dev": d}, "") // as with every line of dev, the next write tells
		return
	}
	note := " (removed at the end; --data keeps one)"
	if kept {
		note = ""
	}
	fmt.Fprintf(p.out, `Eventhose %s

  Dashboard  %s
  API        %s
  API key    %s
  Docs       %s
  Receiver   %s  secret %s
  Data       %s%s

Append an event:

  curl %s/v1/tenants/default/events -H 'Authorization: Bearer %s' -H 'Content-Type: application/json' -d '{"type": "order.paid", "data": {"amount": 4200}}'

`, p.version, d.Dashboard, d.URL, d.Key, d.Docs, d.Receiver, d.Secret, d.Data, note, d.URL, strings.ReplaceAll(d.Key, "'", `'\''`))
}
