package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// connection says which server a command talks to, and as whom.
type connection struct {
	url, key, tenant string
	timeout          time.Duration
	// wait is how long the server may hold an answer.
	wait time.Duration
}

// waitFlag gives a command --wait, which connected adds to its time.
func (p *program) waitFlag(f *pflag.FlagSet, usage string) {
	f.DurationVar(&p.conn.wait, "wait", 0, usage+", at most 60s; comes on top of --timeout, unless that is given")
}

// connected gives a command the flags of the connection, and runs it with a client whose calls end with --timeout.
func (p *program) connected(c *cobra.Command, run func(ctx context.Context, c *client.Client, args []string) error) *cobra.Command {
	f := c.Flags()
	p.connectionFlags(f)
	f.DurationVar(&p.conn.timeout, "timeout", time.Minute, "how long to wait for the whole command")
	variable(f, "timeout", "EVENTHOSE_TIMEOUT")
	c.RunE = func(c *cobra.Command, args []string) error {
		timeout, wait := p.conn.timeout, p.conn.wait
		switch {
		case timeout <= 0:
			return &usageError{what: "--timeout must be more than 0"}
		case wait < 0:
			return &usageError{what: "--wait must not be negative"}
		case !f.Changed("timeout"):
			timeout += wait
		case wait >= timeout:
			return &usageError{what: fmt.Sprintf("--wait %v is not over before --timeout %v", wait, timeout),
				fix: fmt.Sprintf("leave --timeout out, or give --timeout %v", wait+time.Minute)}
		}
		ctx, cancel := context.WithTimeout(c.Context(), timeout)
		defer cancel()
		cl, err := p.connect()
		if err != nil {
			return err
		}
		defer cl.Close()
		return run(ctx, cl, args)
	}
	return c
}

// connectionFlags are those that connect reads.
func (p *program) connectionFlags(f *pflag.FlagSet) {
	f.StringVar(&p.conn.url, "url", "http://127.0.0.1:8080", "the server")
	f.StringVar(&p.conn.key, "key", "", "the API key")
	f.StringVar(&p.conn.tenant, "tenant", "default", "whose log")
	variable(f, "url", "EVENTHOSE_URL")
	variable(f, "key", "EVENTHOSE_API_KEY")
	variable(f, "tenant", "EVENTHOSE_TENANT")
}

// connect makes the client that the flags of the connection ask for. It asks nothing of the server.
func (p *program) connect(options ...client.Option) (*client.Client, error) {
	if err := eventhose.TenantID(p.conn.tenant).Validate(); err != nil {
		return nil, err
	}
	return client.New(p.conn.url, eventhose.Secret(p.conn.key), append(options, client.WithUserAgent("eventhose/"+p.version))...)
}

// inTenantFor is inTenant for a command that goes on until it is interrupted.
func (p *program) inTenantFor(c *cobra.Command, run func(ctx context.Context, t *client.Tenant, args []string) error) *cobra.Command {
	p.connectionFlags(c.Flags())
	c.RunE = func(c *cobra.Command, args []string) error {
		cl, err := p.connect()
		if err != nil {
			return err
		}
		defer cl.Close()
		return run(c.Context(), cl.Tenant(eventhose.TenantID(p.conn.tenant)), args)
	}
	return c
}

// inTenant is connected for a command that works on one tenant's log.
func (p *program) inTenant(c *cobra.Command, run func(ctx context.Context, t *client.Tenant, args []string) error) *cobra.Command {
	return p.connected(c, func(ctx context.Context, cl *client.Client, args []string) error {
		return run(ctx, cl.Tenant(eventhose.TenantID(p.conn.tenant)), args)
	})
}

// listFlags gives a command the flags of a list.
func listFlags(c *cobra.Command, o *client.ListOptions) {
	c.Flags().StringVar(&o.After, "after", "", "go on after this place, as the list before told it")
	c.Flags().IntVar(&o.Limit, "limit", 0, "how many at most, up to 1000")
}
