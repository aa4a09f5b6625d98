package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

func (p *program) portalCommand() *cobra.Command {
	return group("portal", "Links that show one customer his deliveries", "  eventhose portal link --tenant acme --capabilities view,data", p.portalLink(), p.portalList(), p.portalRevoke())
}

func (p *program) portalLink() *cobra.Command {
	var capabilities, subscriptions []string
	var expires time.Duration
	var name string
	c := &cobra.Command{
		Use:   "link",
		Short: "Make a link to the portal, whose URL is shown this once",
		Long: `Make a link to the portal: whoever has it sees, and perhaps works on, the deliveries of one tenant until it expires or is revoked.
stdout is the URL and nothing else. The token stands in its fragment, which browsers send to no server.

view shows subscriptions, attempts and events without data, and is always among the capabilities; data shows data and what receivers have answered;
manage creates, changes, pauses and deletes subscriptions; secrets reads and rotates signing secrets; replay replays, redrives and
discards; test sends test events.`,
		Example: `  eventhose portal link --tenant acme --capabilities view,data --expires 1h
  eventhose portal link --tenant acme --capabilities manage,replay,test --subscriptions sub_01h455vb4pex5vsknk084sn02q --name "the shop"`,
		Args: args(0, 0),
	}
	f := c.Flags()
	f.StringSliceVar(&capabilities, "capabilities", []string{"view"}, "what it opens: view, data, manage, secrets, replay, test")
	f.DurationVar(&expires, "expires", eventhose.DefaultLinkTime, "how long it is good, 1m to 720h")
	f.StringVar(&name, "name", "", "a name for people")
	f.StringSliceVar(&subscriptions, "subscriptions", nil, "the ids of the only subscriptions that it shows (default all)")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		l := client.NewPortalLink{Name: name, ExpiresIn: eventhose.Duration(expires)}
		if expires <= 0 {
			return &usageError{what: "--expires must be between 1m and 720h", fix: c.CommandPath() + " --expires 1h"}
		}
		for _, s := range capabilities {
			l.Capabilities = append(l.Capabilities, eventhose.Capability(s))
		}
		if c.Flags().Changed("subscriptions") {
			l.Subscriptions = []eventhose.SubscriptionID{} // none is not all
		}
		for _, s := range subscriptions {
			l.Subscriptions = append(l.Subscriptions, eventhose.SubscriptionID(s))
		}
		made, err := t.CreatePortalLink(ctx, l)
		if err != nil {
			return err
		}
		// The one place where the token is meant to be seen.
		shown := struct {
			eventhose.PortalLink
			URL   string `json:"url"`
			Token string `json:"token"`
		}{made.PortalLink, string(made.URL), string(made.Token)}
		if p.output == "text" {
			fmt.Fprintf(p.err, "%s is good until %s\n", made.ID, stamp(made.Expires))
		}
		return p.print(shown, func(w io.Writer) { fmt.Fprintln(w, shown.URL) })
	})
}

func (p *program) portalList() *cobra.Command {
	var o client.ListOptions
	c := &cobra.Command{Use: "list", Short: "List the links that are good", Example: "  eventhose portal list --tenant acme", Args: args(0, 0)}
	listFlags(c, &o)
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		l, err := t.PortalLinks(ctx, o)
		if err != nil {
			return err
		}
		return printList(p, l, "ID CAPABILITIES SUBSCRIPTIONS EXPIRES NAME", func(l eventhose.PortalLink) []string {
			subscriptions := "(all)"
			if len(l.Subscriptions) > 0 {
				subscriptions = joined(l.Subscriptions)
			}
			return []string{l.ID, joined(l.Capabilities), subscriptions, stamp(l.Expires), oneLine(l.Name)}
		})
	})
}

func (p *program) portalRevoke() *cobra.Command {
	c := &cobra.Command{Use: "revoke LINK-ID", Short: "End a link at once", Example: "  eventhose portal revoke ptl_01h455vb4pex5vsknk084sn02q --tenant acme", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		if err := t.RevokePortalLink(ctx, args[0]); err != nil {
			return err
		}
		fmt.Fprintln(p.err, "revoked", oneLine(args[0]))
		return nil
	})
}

func (p *program) auditCommand() *cobra.Command {
	var o client.AuditOptions
	var all bool
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who has changed what, newest first",
		Long: `Show who has changed what, newest first: of one tenant, or with --all-tenants of the whole platform. A page looks at about 5,000 entries, so
with a filter it may show fewer than asked for, or none, and say how to go on.`,
		Example: `  eventhose audit --tenant acme --target sub_01h455vb4pex5vsknk084sn02q
  eventhose audit --all-tenants --actor ana@example.com --action deleteSubscription -o jsonl`,
		Args: args(0, 0),
	}
	f := c.Flags()
	f.BoolVar(&all, "all-tenants", false, "of the whole platform instead of --tenant alone")
	f.StringVar(&o.Actor, "actor", "", "only what this actor did: an id, or the name of a key, a person or a link")
	f.StringVar(&o.Action, "action", "", "only this, such as updateSubscription")
	f.StringVar(&o.Target, "target", "", "only what was done to the thing with this id")
	listFlags(c, &o.ListOptions)
	return p.connected(c, func(ctx context.Context, cl *client.Client, _ []string) error {
		read := cl.Tenant(eventhose.TenantID(p.conn.tenant)).Audit
		if all {
			read = cl.Audit
		}
		l, err := read(ctx, o)
		if err != nil {
			return err
		}
		return printList(p, l, "TIME ACTOR ACTION TENANT TARGET CHANGES", func(e eventhose.AuditEntry) []string {
			return []string{stamp(e.Time), oneLine(actorOf(e.Actor)), e.Action, string(e.Tenant), oneLine(e.Target), oneLine(changesOf(e.Changes))}
		})
	})
}

func actorOf(a eventhose.Actor) string {
	if a.Name == "" || a.Name == a.ID {
		return a.ID
	}
	return a.Name + " (" + a.ID + ")"
}

// changesOf writes changes on one line: what became of each field, cut where it is long.
func changesOf(changes map[string][]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		pair := changes[name]
		if len(pair) != 2 {
			continue
		}
		parts = append(parts, name+": "+changeText(pair[0])+" -> "+changeText(pair[1]))
	}
	return strings.Join(parts, "; ")
}

func changeText(v any) string {
	const most = 40
	text, err := json.Marshal(v)
	if err != nil || v == nil {
		return "none"
	}
	if r := []rune(string(text)); len(r) > most {
		return string(r[:most]) + "…"
	}
	return string(text)
}
