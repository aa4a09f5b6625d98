package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

func (p *program) inspectCommand() *cobra.Command {
	return group("inspect", "Built-in receivers that show what they get, and fail when they are told to", "  eventhose inspect create\n  eventhose inspect requests ins_01h455vb4pex5vsknk084sn02q --follow",
		p.inspectCreate(), p.inspectList(), p.inspectGet(), p.inspectUpdate(), p.inspectDelete(), p.inspectRequests())
}

// inspectorFlags are what create and update share.
type inspectorFlags struct {
	name, body, secret string
	status             int
	delay              time.Duration
	failRate           float64
}

func (i *inspectorFlags) add(f *pflag.FlagSet) {
	f.StringVar(&i.name, "name", "", "a name for people")
	f.IntVar(&i.status, "status", 200, "what it answers")
	f.DurationVar(&i.delay, "delay", 0, "how long it holds an answer, at most 10s")
	f.Float64Var(&i.failRate, "fail-rate", 0, "the part of the requests, 0 to 1, that it answers 500 instead")
	f.StringVar(&i.body, "body", "", "the body of its answers: the text, @file, or - for stdin")
	f.StringVar(&i.secret, "secret", "", "verifies what comes, such as a subscription's signing secret: the text, @file, or - for stdin")
}

// patch is what the flags that were given ask for.
func (i *inspectorFlags) patch(p *program, f *pflag.FlagSet) (eventhose.InspectorPatch, error) {
	var patch eventhose.InspectorPatch
	if f.Changed("name") {
		patch.Name = &i.name
	}
	if f.Changed("status") {
		patch.Status = &i.status
	}
	if f.Changed("delay") {
		patch.Delay = (*eventhose.Duration)(&i.delay)
	}
	if f.Changed("fail-rate") {
		patch.FailRate = &i.failRate
	}
	if f.Changed("body") {
		b, err := p.input("body", i.body, eventhose.MaxInspectBody)
		if err != nil {
			return patch, err
		}
		body := string(b)
		patch.Body = &body
	}
	if f.Changed("secret") {
		b, err := p.input("secret", i.secret, maxFileValue)
		if err != nil {
			return patch, err
		}
		secret := eventhose.Secret(strings.TrimSpace(string(b)))
		patch.Secret = &secret
	}
	return patch, nil
}

func (p *program) inspectCreate() *cobra.Command {
	var i inspectorFlags
	c := &cobra.Command{
		Use:   "create",
		Short: "Make an inspector, and print where to send to",
		Long: `Make an inspector, and print where to send to: "url" is for anybody, "destination" for a subscription's --to, whose deliveries do not leave
the server. It keeps the last 100 requests, 20 a second, and goes a day after it was last used.`,
		Example: `  eventhose inspect create --name shaky --fail-rate 0.5
  eventhose inspect create --status 202 --delay 2s`,
		Args: args(0, 0),
	}
	i.add(c.Flags())
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		patch, err := i.patch(p, c.Flags())
		if err != nil {
			return err
		}
		var inspector eventhose.Inspector
		patch.Apply(&inspector)
		made, err := t.CreateInspector(ctx, inspector)
		if err != nil {
			return err
		}
		return p.printInspector(made)
	})
}

func (p *program) inspectUpdate() *cobra.Command {
	var i inspectorFlags
	c := &cobra.Command{
		Use:   "update INSPECTOR",
		Short: "Change what is named, such as how often it fails; the rest stays",
		Example: `  eventhose inspect update ins_01h455vb4pex5vsknk084sn02q --fail-rate 0
  eventhose inspect update ins_01h455vb4pex5vsknk084sn02q --status 503`,
		Args: args(1, 1),
	}
	i.add(c.Flags())
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		patch, err := i.patch(p, c.Flags())
		if err != nil {
			return err
		}
		if patch == (eventhose.InspectorPatch{}) {
			return &usageError{what: "nothing to change was named", fix: c.CommandPath() + " --help"}
		}
		after, err := t.UpdateInspector(ctx, eventhose.InspectorID(args[0]), patch)
		if err != nil {
			return err
		}
		return p.printInspector(after)
	})
}

func (p *program) printInspector(i client.Inspector) error {
	return p.print(i, func(w io.Writer) {
		block(w, "id", i.ID, "name", i.Name, "url", i.URL, "destination", i.Destination, "answers", i.Status)
		if i.Delay > 0 {
			block(w, "after", i.Delay)
		}
		if i.FailRate > 0 {
			block(w, "fail rate", i.FailRate)
		}
		if i.Secret != "" {
			block(w, "secret", i.Secret)
		}
		block(w, "body", i.Body, "requests", many(int(i.Requests)), "created", stamp(i.Created), "expires", stamp(i.Expires))
	})
}

func (p *program) inspectList() *cobra.Command {
	var o client.ListOptions
	c := &cobra.Command{Use: "list", Short: "List inspectors", Example: "  eventhose inspect list", Args: args(0, 0)}
	listFlags(c, &o)
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		l, err := t.Inspectors(ctx, o)
		if err != nil {
			return err
		}
		return printList(p, l, "ID ANSWERS REQUESTS EXPIRES URL NAME", func(i client.Inspector) []string {
			return []string{string(i.ID), strconv.Itoa(i.Status), strconv.FormatUint(i.Requests, 10), stamp(i.Expires), oneLine(i.URL), oneLine(i.Name)}
		})
	})
}

func (p *program) inspectGet() *cobra.Command {
	c := &cobra.Command{Use: "get INSPECTOR", Short: "Show one inspector", Example: "  eventhose inspect get ins_01h455vb4pex5vsknk084sn02q", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		i, err := t.Inspector(ctx, eventhose.InspectorID(args[0]))
		if err != nil {
			return err
		}
		return p.printInspector(i)
	})
}

func (p *program) inspectDelete() *cobra.Command {
	var requests bool
	c := &cobra.Command{Use: "delete INSPECTOR", Short: "Remove an inspector with its requests, or only these",
		Example: "  eventhose inspect delete ins_01h455vb4pex5vsknk084sn02q --requests", Args: args(1, 1)}
	c.Flags().BoolVar(&requests, "requests", false, "remove only the requests that it has got so far")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		remove, what := t.DeleteInspector, "deleted"
		if requests {
			remove, what = t.ForgetInspected, "deleted the requests of"
		}
		if err := remove(ctx, eventhose.InspectorID(args[0])); err != nil {
			return err
		}
		fmt.Fprintln(p.err, what, oneLine(args[0]))
		return nil
	})
}

// followInspected is how long one request for what an inspector gets waits.
const followInspected = 20 * time.Second

func (p *program) inspectRequests() *cobra.Command {
	var o client.InspectedOptions
	var follow, full bool
	c := &cobra.Command{
		Use:   "requests INSPECTOR",
		Short: "Show what an inspector got: a list, newest first, or with --follow each request as it comes",
		Long: `Show what an inspector got: a list, newest first, or with --follow each request as it comes, with headers and body, until it is interrupted
(exit code 130). To follow begins with what comes from now on, unless --after names a request.`,
		Example: `  eventhose inspect requests ins_01h455vb4pex5vsknk084sn02q --limit 10
  eventhose inspect requests ins_01h455vb4pex5vsknk084sn02q --full --limit 1
  eventhose inspect requests ins_01h455vb4pex5vsknk084sn02q --follow`,
		Args: args(1, 1),
	}
	f := c.Flags()
	f.BoolVar(&follow, "follow", false, "print each request as it comes")
	f.BoolVar(&full, "full", false, "with headers and body")
	f.StringVar(&o.After, "after", "", "only requests later than this one")
	f.StringVar(&o.Before, "before", "", "only requests earlier than this one, as the list before told it")
	f.IntVar(&o.Limit, "limit", 0, "how many at most, up to 100; with --follow, end after this many")
	return p.inTenantFor(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		id := eventhose.InspectorID(args[0])
		if o.Limit < 0 {
			return &usageError{what: "--limit must not be negative"}
		}
		if follow && o.Before != "" {
			return &usageError{what: "--follow and --before exclude each other"}
		}
		if follow {
			return p.followInspected(ctx, t, id, o.After, o.Limit)
		}
		l, err := t.Inspected(ctx, id, o)
		if err != nil {
			return err
		}
		if full && p.output == "text" {
			for _, r := range l.Data {
				if err := p.printRequest(r); err != nil {
					return err
				}
			}
			return nil
		}
		return printPage(p, l, "--before", "ID TIME METHOD PATH ANSWERED SIGNATURE BODY", func(r eventhose.InspectedRequest) []string {
			return []string{r.ID, stamp(r.Time), oneLine(r.Method), oneLine(r.Path), strconv.Itoa(r.Answered), oneLine(r.Signature), strconv.Itoa(len(r.Content()))}
		})
	})
}

// followInspected prints requests as they come, oldest first, limit of them if that is not 0.
func (p *program) followInspected(ctx context.Context, t *client.Tenant, id eventhose.InspectorID, after string, limit int) error {
	i, err := t.Inspector(ctx, id)
	if err != nil {
		return err
	}
	o := client.InspectedOptions{}
	if o.After = after; after == "" {
		o.Limit = 1
		newest, err := t.Inspected(ctx, id, o)
		if err != nil {
			return err
		}
		if len(newest.Data) > 0 {
			o.After = newest.Data[0].ID
		}
		o.Limit = 0
	}
	p.tell("ready: "+i.URL, map[string]any{"ready": map[string]string{"url": i.URL}})
	o.Wait = followInspected
	for n := 0; ; {
		requests, err := inspectedSince(ctx, t, id, o)
		if err != nil {
			return err
		}
		for _, r := range slices.Backward(requests) {
			if err := p.printRequest(r); err != nil {
				return err
			}
			o.After = r.ID
			if n++; n == limit {
				return nil
			}
		}
	}
}

// inspectedSince answers all requests after one, newest first, once there is one.
func inspectedSince(ctx context.Context, t *client.Tenant, id eventhose.InspectorID, o client.InspectedOptions) (all []eventhose.InspectedRequest, err error) {
	for {
		l, err := t.Inspected(ctx, id, o)
		if err != nil {
			return nil, err
		}
		all = append(all, l.Data...)
		if o.Before, o.Wait = l.Next, 0; l.Next == "" {
			return all, nil
		}
	}
}

// printRequest prints a request as it came.
func (p *program) printRequest(r eventhose.InspectedRequest) error {
	if p.output != "text" {
		return p.printJSON(r)
	}
	line := r.Method + " " + r.Path
	if r.Query != "" {
		line += "?" + r.Query
	}
	note := "answered " + strconv.Itoa(r.Answered)
	if r.Answered == 0 {
		note = "the sender left"
	}
	if r.Signature != eventhose.SignatureNone {
		note += ", signature " + r.Signature
	}
	if _, err := fmt.Fprintf(p.out, "%s %s  %s  %s\n", clock(r.Time), r.ID, oneLine(line), oneLine(note)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		for _, value := range r.Headers[name] {
			fmt.Fprintf(p.out, "  %s: %s\n", oneLine(name), oneLine(value))
		}
	}
	_, err := fmt.Fprintf(p.out, "\n%s\n\n", printableText(r.Content()))
	return err
}
