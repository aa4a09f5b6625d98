package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

func (p *program) tenantsCommand() *cobra.Command {
	return group("tenants", "The owners of logs", "  eventhose tenants list", p.tenantsPut(), p.tenantsGet(), p.tenantsList())
}

func (p *program) tenantsPut() *cobra.Command {
	var parent string
	var age time.Duration
	var bytes, dead int64
	c := &cobra.Command{
		Use:   "put TENANT",
		Short: "Create a tenant, or change its retention",
		Long: `Create a tenant, or change its retention. The retention is replaced as a whole: a bound that is not given is taken away. The platform
stays.`,
		Example: `  eventhose tenants put acme --retention-age 720h
  eventhose tenants put acme-eu --parent acme`,
		Args: args(1, 1),
	}
	f := c.Flags()
	f.StringVar(&parent, "parent", "", "the platform that it is connected to; set once")
	f.DurationVar(&age, "retention-age", 0, "how long events stay, a second or more; 0 is for ever")
	f.Int64Var(&bytes, "retention-bytes", 0, "how much data the log keeps; 0 is without bound")
	f.Int64Var(&dead, "retention-dead-bytes", 0, "how much data is kept for dead events beyond that; 0 is 64 MiB")
	return p.connected(c, func(ctx context.Context, cl *client.Client, args []string) error {
		t, err := cl.PutTenant(ctx, eventhose.Tenant{ID: eventhose.TenantID(args[0]), Parent: eventhose.TenantID(parent),
			Retention: eventhose.Retention{Age: eventhose.Duration(age), Bytes: bytes, DeadBytes: dead}})
		if err != nil {
			return err
		}
		return p.printTenant(t)
	})
}

func (p *program) tenantsGet() *cobra.Command {
	c := &cobra.Command{Use: "get TENANT", Short: "Show a tenant", Example: "  eventhose tenants get acme", Args: args(1, 1)}
	return p.connected(c, func(ctx context.Context, cl *client.Client, args []string) error {
		t, err := cl.GetTenant(ctx, eventhose.TenantID(args[0]))
		if err != nil {
			return err
		}
		return p.printTenant(t)
	})
}

func (p *program) printTenant(t eventhose.Tenant) error {
	return p.print(t, func(w io.Writer) {
		dead := ""
		if n := t.Retention.DeadBytes; n != 0 {
			dead = size(n) + " beyond that"
		}
		block(w, "tenant", t.ID, "parent", t.Parent, "retention", retention(t.Retention), "dead events", dead, "created", stamp(t.Created), "updated", stamp(t.Updated))
	})
}

func (p *program) tenantsList() *cobra.Command {
	var o client.ListOptions
	c := &cobra.Command{Use: "list", Short: "List tenants", Example: "  eventhose tenants list -o jsonl", Args: args(0, 0)}
	listFlags(c, &o)
	return p.connected(c, func(ctx context.Context, cl *client.Client, _ []string) error {
		l, err := cl.Tenants(ctx, o)
		if err != nil {
			return err
		}
		return printList(p, l, "TENANT PARENT RETENTION CREATED", func(t eventhose.Tenant) []string {
			return []string{string(t.ID), string(t.Parent), retention(t.Retention), stamp(t.Created)}
		})
	})
}

func retention(r eventhose.Retention) string {
	var parts []string
	if r.Age != 0 {
		parts = append(parts, r.Age.String())
	}
	if r.Bytes != 0 {
		parts = append(parts, size(r.Bytes))
	}
	if parts == nil {
		return "for ever"
	}
	return strings.Join(parts, " or ")
}
