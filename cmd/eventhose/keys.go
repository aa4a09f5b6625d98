package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

func (p *program) keysCommand() *cobra.Command {
	return group("keys", "API keys", "  eventhose keys list", p.keysCreate(), p.keysList(), p.keysRevoke())
}

func (p *program) keysCreate() *cobra.Command {
	var scopes []string
	var expires time.Duration
	var all bool
	var name string
	c := &cobra.Command{
		Use:   "create",
		Short: "Make an API key, which is shown this once",
		Example: `  eventhose keys create --tenant acme --scopes publish --name "the shop"
  eventhose keys create --all-tenants --scopes read --expires-in 720h -o json`,
		Args: args(0, 0),
	}
	f := c.Flags()
	f.StringSliceVar(&scopes, "scopes", nil, "what it may do: publish, read, manage, admin")
	f.StringVar(&name, "name", "", "a name for people, which the audit log shows")
	f.DurationVar(&expires, "expires-in", 0, "when it ends; 0 is never")
	f.BoolVar(&all, "all-tenants", false, "for all tenants instead of --tenant alone")
	return p.connected(c, func(ctx context.Context, cl *client.Client, _ []string) error {
		if len(scopes) == 0 {
			return &usageError{what: "--scopes is missing", fix: c.CommandPath() + " --scopes publish,read"}
		}
		k := client.NewKey{Name: name, Tenant: p.keyTenant(all)}
		for _, s := range scopes {
			k.Scopes = append(k.Scopes, eventhose.Scope(s))
		}
		if expires != 0 {
			k.Expires = time.Now().Add(expires).UTC()
		}
		made, err := cl.CreateKey(ctx, k)
		if err != nil {
			return err
		}
		// The one place where a key is meant to be seen.
		shown := struct {
			eventhose.APIKey
			Key string `json:"key"`
		}{made.APIKey, string(made.Key)}
		return p.print(shown, func(w io.Writer) {
			block(w, "id", made.ID, "name", made.Name, "key", shown.Key, "tenant", tenantOf(made.APIKey), "scopes", joined(made.Scopes), "expires", stamp(made.Expires))
		})
	})
}

func (p *program) keysList() *cobra.Command {
	var o client.ListOptions
	var all bool
	c := &cobra.Command{Use: "list", Short: "List API keys", Example: "  eventhose keys list --all-tenants", Args: args(0, 0)}
	c.Flags().BoolVar(&all, "all-tenants", false, "those of all tenants instead of --tenant alone")
	listFlags(c, &o)
	return p.connected(c, func(ctx context.Context, cl *client.Client, _ []string) error {
		l, err := cl.Keys(ctx, p.keyTenant(all), o)
		if err != nil {
			return err
		}
		return printList(p, l, "ID TENANT SCOPES CREATED EXPIRES REVOKED USED NAME", func(k eventhose.APIKey) []string {
			return []string{k.ID, tenantOf(k), joined(k.Scopes), stamp(k.Created), stamp(k.Expires), stamp(k.Revoked), stamp(k.LastUsed), oneLine(k.Name)}
		})
	})
}

func (p *program) keysRevoke() *cobra.Command {
	c := &cobra.Command{Use: "revoke KEY-ID", Short: "End an API key", Example: "  eventhose keys revoke key_01h455vb4pex5vsknk084sn02q", Args: args(1, 1)}
	return p.connected(c, func(ctx context.Context, cl *client.Client, args []string) error {
		if err := cl.RevokeKey(ctx, args[0]); err != nil {
			return err
		}
		fmt.Fprintln(p.err, "revoked", oneLine(args[0]))
		return nil
	})
}

func (p *program) keyTenant(all bool) eventhose.TenantID {
	if all {
		return ""
	}
	return eventhose.TenantID(p.conn.tenant)
}

func tenantOf(k eventhose.APIKey) string {
	if k.Tenant == "" {
		return "(all)"
	}
	return string(k.Tenant)
}

func joined[S ~string](parts []S) string {
	s := make([]string, len(parts))
	for i, part := range parts {
		s[i] = string(part)
	}
	return strings.Join(s, ",")
}
