package main

import (
	"context"
	"encoding/json"
	"errors"
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

func (p *program) sourcesCommand() *cobra.Command {
	return group("sources", "Addresses for the webhooks of providers: verified, in the log once, with an inbox", "  eventhose sources create stripe --secret @stripe.secret",
		p.sourcesCreate(), p.sourcesList(), p.sourcesGet(), p.sourcesUpdate(), p.sourcesDelete(),
		p.sourcesRejections(), p.sourcesRejection(), p.sourcesRetry(), p.sourcesInspect())
}

// sourceFlags are what create and update share.
type sourceFlags struct {
	name, verifyToken, publicURL, typePrefix, scheme, naming string
	secrets, publicKeys                                      []string
	options                                                  map[string]string
	tolerance, answerDelay                                   time.Duration
	answerStatus                                             int
	answerBody, answerContentType                            string
}

func (s *sourceFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.name, "name", "", "a name for people")
	f.StringArrayVar(&s.secrets, "secret", nil, "what the provider signs with: the text, @file, or - for stdin; several during a rotation")
	f.StringArrayVar(&s.publicKeys, "public-key", nil, "the provider's public key, or @file")
	f.StringVar(&s.verifyToken, "verify-token", "", "what the provider shows when it tries the address, or @file")
	f.StringVar(&s.publicURL, "provider-url", "", "the URL as the provider was given it, if it signs that and it is another than the server says")
	f.DurationVar(&s.tolerance, "tolerance", 0, "how far a signed time may be off; 0 is the provider's usual one")
	f.StringToStringVar(&s.options, "option", nil, "what is particular to a provider (webhook_id=8AB)")
	f.StringVar(&s.typePrefix, "type-prefix", "", "begins the types of the events; the provider's name if not given")
	f.StringVar(&s.scheme, "scheme", "", "how requests are signed, for the provider generic: JSON, or @file")
	f.StringVar(&s.naming, "naming", "", "where id, type, key and time stand: JSON, or @file")
	f.IntVar(&s.answerStatus, "answer-status", 0, "what the provider inspect answers; 0 is 200")
	f.DurationVar(&s.answerDelay, "answer-delay", 0, "how long the provider inspect holds its answer, at most 10s")
	f.StringVar(&s.answerBody, "answer-body", "", "the body of that answer, or @file")
	f.StringVar(&s.answerContentType, "answer-content-type", "", "the content type of that body; text/plain if not given")
}

// text reads one flag that may name a file.
func (s *sourceFlags) text(p *program, flag, value string) (string, error) {
	b, err := p.input(flag, value, maxFileValue)
	return strings.TrimRight(string(b), "\r\n"), err
}

// patch is what the flags that were given ask for.
func (s *sourceFlags) patch(p *program, f *pflag.FlagSet) (eventhose.SourcePatch, error) {
	var patch eventhose.SourcePatch
	var errs []error
	text := func(flag, value string) string {
		b, err := s.text(p, flag, value)
		errs = append(errs, err)
		return b
	}
	if f.Changed("name") {
		patch.Name = &s.name
	}
	if f.Changed("secret") {
		secrets := []eventhose.Secret{}
		for _, value := range s.secrets {
			secrets = append(secrets, eventhose.Secret(text("secret", value)))
		}
		patch.Secrets = &secrets
	}
	if f.Changed("public-key") {
		keys := []string{}
		for _, value := range s.publicKeys {
			keys = append(keys, text("public-key", value))
		}
		patch.PublicKeys = &keys
	}
	if f.Changed("verify-token") {
		token := eventhose.Secret(text("verify-token", s.verifyToken))
		patch.VerifyToken = &token
	}
	if f.Changed("provider-url") {
		patch.PublicURL = &s.publicURL
	}
	if f.Changed("tolerance") {
		patch.Tolerance = (*eventhose.Duration)(&s.tolerance)
	}
	if f.Changed("option") {
		patch.Options = &s.options
	}
	if f.Changed("type-prefix") {
		patch.TypePrefix = &s.typePrefix
	}
	decode := func(flag, value string, into any) {
		if err := json.Unmarshal([]byte(text(flag, value)), into); err != nil {
			errs = append(errs, &usageError{what: "--" + flag + " is not the JSON of a " + flag + ": " + err.Error(), fix: "docs/providers.md"})
		}
	}
	if f.Changed("scheme") {
		patch.Scheme = new(eventhose.SourceScheme)
		decode("scheme", s.scheme, patch.Scheme)
	}
	if f.Changed("naming") {
		patch.Naming = new(eventhose.SourceNaming)
		decode("naming", s.naming, patch.Naming)
	}
	return patch, errors.Join(errs...)
}

// answers reports whether flags ask for another answer of the provider inspect.
func (s *sourceFlags) answers(f *pflag.FlagSet) bool {
	return slices.ContainsFunc([]string{"answer-status", "answer-delay", "answer-body", "answer-content-type"}, f.Changed)
}

// answer is what the flags that were given make of an answer, which is replaced as a whole; nil is the one of who has set none.
func (s *sourceFlags) answer(p *program, f *pflag.FlagSet, had *eventhose.InspectAnswer) (*eventhose.InspectAnswer, error) {
	var a eventhose.InspectAnswer
	if had != nil {
		a = *had
	}
	if f.Changed("answer-status") {
		a.Status = s.answerStatus
	}
	if f.Changed("answer-delay") {
		a.Delay = eventhose.Duration(s.answerDelay)
	}
	if f.Changed("answer-content-type") {
		a.ContentType = s.answerContentType
	}
	if f.Changed("answer-body") {
		body, err := s.text(p, "answer-body", s.answerBody)
		if err != nil {
			return nil, err
		}
		a.Body = body
	}
	return &a, nil
}

func (p *program) sourcesCreate() *cobra.Command {
	var s sourceFlags
	c := &cobra.Command{
		Use:   "create PROVIDER",
		Short: "Make an address for a provider's webhooks, and print it",
		Long: `Make an address for a provider's webhooks, and print it: give it to the provider. docs/providers.md lists the providers and what each
needs; generic describes any other whose signature is an HMAC, and inspect takes anything, to see what comes.`,
		Example: `  eventhose sources create stripe --secret @stripe.secret
  eventhose sources create github --secret @new.secret --secret @old.secret --type-prefix ci
  eventhose sources create generic --secret @shop.secret --scheme '{"header": "X-Signature", "prefix": "sha256="}'`,
		Args: args(1, 1),
	}
	s.add(c.Flags())
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		patch, err := s.patch(p, c.Flags())
		if err != nil {
			return err
		}
		if s.answers(c.Flags()) {
			if patch.Answer, err = s.answer(p, c.Flags(), nil); err != nil {
				return err
			}
		}
		source := eventhose.Source{Provider: args[0]}
		patch.Apply(&source)
		made, err := t.CreateSource(ctx, source)
		if err != nil {
			return err
		}
		return p.printSource(made)
	})
}

func (p *program) sourcesUpdate() *cobra.Command {
	var s sourceFlags
	c := &cobra.Command{
		Use:   "update SOURCE",
		Short: "Change what is named, such as the secrets; the rest stays",
		Example: `  eventhose sources update src_01h455vb4pex5vsknk084sn02q --secret @new.secret --secret @old.secret
  eventhose sources update src_01h455vb4pex5vsknk084sn02q --tolerance 10m`,
		Args: args(1, 1),
	}
	s.add(c.Flags())
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		patch, err := s.patch(p, c.Flags())
		if err != nil {
			return err
		}
		if s.answers(c.Flags()) {
			before, err := t.Source(ctx, eventhose.SourceID(args[0]))
			if err != nil {
				return err
			}
			if patch.Answer, err = s.answer(p, c.Flags(), before.Answer); err != nil {
				return err
			}
		}
		if patch == (eventhose.SourcePatch{}) {
			return &usageError{what: "nothing to change was named", fix: c.CommandPath() + " --help"}
		}
		after, err := t.UpdateSource(ctx, eventhose.SourceID(args[0]), patch)
		if err != nil {
			return err
		}
		return p.printSource(after)
	})
}

func (p *program) printSource(s client.Source) error {
	return p.print(s, func(w io.Writer) {
		block(w, "id", s.ID, "url", s.URL, "provider", s.Provider, "name", s.Name, "secrets", many(len(s.Secrets)), "public keys", many(len(s.PublicKeys)),
			"provider's url", s.PublicURL, "type prefix", s.TypePrefix, "inbox", s.Subscription, "created", stamp(s.Created), "updated", stamp(s.Updated))
		if s.Tolerance != 0 {
			block(w, "tolerance", s.Tolerance)
		}
		for _, name := range slices.Sorted(maps.Keys(s.Options)) {
			block(w, "option "+name, s.Options[name])
		}
		if a := s.Answer; a != nil {
			block(w, "answers", a.Status, "after", a.Delay)
		}
	})
}

// many writes a count, or "" for none.
func many(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func (p *program) sourcesList() *cobra.Command {
	var o client.ListOptions
	c := &cobra.Command{Use: "list", Short: "List sources", Example: "  eventhose sources list", Args: args(0, 0)}
	listFlags(c, &o)
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		l, err := t.Sources(ctx, o)
		if err != nil {
			return err
		}
		return printList(p, l, "ID PROVIDER URL INBOX NAME", func(s client.Source) []string {
			return []string{string(s.ID), oneLine(s.Provider), oneLine(s.URL), string(s.Subscription), oneLine(s.Name)}
		})
	})
}

func (p *program) sourcesGet() *cobra.Command {
	c := &cobra.Command{Use: "get SOURCE", Short: "Show a source; its secrets are not shown", Example: "  eventhose sources get src_01h455vb4pex5vsknk084sn02q", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		s, err := t.Source(ctx, eventhose.SourceID(args[0]))
		if err != nil {
			return err
		}
		return p.printSource(s)
	})
}

func (p *program) sourcesDelete() *cobra.Command {
	c := &cobra.Command{Use: "delete SOURCE", Short: "Remove a source with its inbox; its events stay in the log",
		Example: "  eventhose sources delete src_01h455vb4pex5vsknk084sn02q", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		if err := t.DeleteSource(ctx, eventhose.SourceID(args[0])); err != nil {
			return err
		}
		fmt.Fprintln(p.err, "deleted", oneLine(args[0]))
		return nil
	})
}

func (p *program) sourcesRejections() *cobra.Command {
	c := &cobra.Command{Use: "rejections SOURCE", Short: "List the requests that a source did not take, newest first, and why",
		Example: "  eventhose sources rejections src_01h455vb4pex5vsknk084sn02q", Args: args(1, 1)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		l, err := t.Rejections(ctx, eventhose.SourceID(args[0]))
		if err != nil {
			return err
		}
		return printList(p, l, "ID RECEIVED METHOD BYTES REASON DETAIL", func(r eventhose.Rejection) []string {
			return []string{r.ID, stamp(r.Received), oneLine(r.Method), strconv.Itoa(r.Size), r.Reason, oneLine(r.Detail)}
		})
	})
}

func (p *program) sourcesRejection() *cobra.Command {
	c := &cobra.Command{Use: "rejection SOURCE REJECTION", Short: "Show a rejected request with its headers and body",
		Example: "  eventhose sources rejection src_01h455vb4pex5vsknk084sn02q rej_01h455vb4pex5vsknk084sn02q", Args: args(2, 2)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		r, err := t.Rejection(ctx, eventhose.SourceID(args[0]), args[1])
		if err != nil {
			return err
		}
		return p.print(r, func(w io.Writer) {
			block(w, "id", r.ID, "received", stamp(r.Received), "reason", r.Reason, "detail", r.Detail, "method", r.Method, "query", r.Request.Query)
			for _, name := range slices.Sorted(maps.Keys(r.Request.Header)) {
				block(w, "header "+oneLine(name), strings.Join(r.Request.Header[name], ", "))
			}
			fmt.Fprintf(w, "\n%s\n", printableText(r.Request.Body))
		})
	})
}

func (p *program) sourcesRetry() *cobra.Command {
	c := &cobra.Command{Use: "retry SOURCE REJECTION", Short: "Verify a rejected request again, after its source was mended, and append it",
		Example: "  eventhose sources retry src_01h455vb4pex5vsknk084sn02q rej_01h455vb4pex5vsknk084sn02q", Args: args(2, 2)}
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		placed, err := t.RetryRejection(ctx, eventhose.SourceID(args[0]), args[1])
		if err != nil {
			return err
		}
		return p.print(placed, func(w io.Writer) {
			block(w, "event", placed.ID, "sequence", placed.Sequence, "duplicate", placed.Duplicate)
		})
	})
}

func (p *program) sourcesInspect() *cobra.Command {
	var from place
	var limit int
	c := &cobra.Command{
		Use:   "inspect SOURCE",
		Short: "Show what comes in through a source as it comes, with headers and body",
		Long: `Show what comes in through a source as it comes, with the headers that are kept and the body. A source of the provider inspect takes anything: method,
path, query and headers are attributes of its events. It goes on until it is interrupted, and ends with 130 then.`,
		Example: `  eventhose sources create inspect
  eventhose sources inspect src_01h455vb4pex5vsknk084sn02q`,
		Args: args(1, 1),
	}
	c.Flags().IntVar(&limit, "limit", 0, "end after this many")
	from.add(c)
	return p.inTenantFor(c, func(ctx context.Context, t *client.Tenant, args []string) error {
		if limit < 0 {
			return &usageError{what: "--limit must not be negative"}
		}
		after, err := from.cursor(ctx, t)
		if err != nil {
			return err
		}
		s, err := t.Source(ctx, eventhose.SourceID(args[0]))
		if err != nil {
			return err
		}
		o := client.FollowOptions{After: after}
		o.Expression = `"` + eventhose.SourceAttribute + `" in attributes && attributes["` + eventhose.SourceAttribute + `"] == "` + string(s.ID) + `"`
		o.Lost = func(err error) { p.tellLost("", err) }
		p.tell("ready: "+s.URL, map[string]any{"ready": map[string]string{"url": s.URL}})
		n := 0
		for e, err := range t.Follow(ctx, o) {
			if err == nil {
				err = p.printInspected(e)
			}
			if err != nil {
				return err
			}
			if n++; n == limit {
				return nil
			}
		}
		return ended(ctx)
	})
}

// printInspected prints a request as it came.
func (p *program) printInspected(e eventhose.Event) error {
	if p.output != "text" {
		return p.printEvent(e)
	}
	line := e.ID // of a provider
	if method, ok := e.Attributes["method"]; ok {
		line = method + " " + e.Attributes["path"]
		if query := e.Attributes["query"]; query != "" {
			line += "?" + query
		}
	}
	if _, err := fmt.Fprintf(p.out, "%s %s  %s #%d\n", clock(e.Appended), oneLine(line), e.Type, e.Sequence); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		if !slices.Contains([]string{"method", "path", "query", "provider", eventhose.SourceAttribute}, name) {
			fmt.Fprintf(p.out, "  %s: %s\n", strings.TrimPrefix(name, "header."), oneLine(e.Attributes[name]))
		}
	}
	_, err := fmt.Fprintf(p.out, "\n%s\n\n", printableText(e.Data))
	return err
}

func (p *program) inboxCommand() *cobra.Command {
	var o client.ListOptions
	var q eventhose.InboxQuery
	c := &cobra.Command{
		Use:   "inbox",
		Short: "What came in through sources, and what became of it, oldest first",
		Example: `  eventhose inbox --status dead
  eventhose inbox --provider stripe -o jsonl`,
		Args: args(0, 0),
	}
	listFlags(c, &o)
	f := c.Flags()
	f.StringVar(&q.Provider, "provider", "", "only events of this provider")
	f.StringVar((*string)(&q.Source), "source", "", "only events of this source")
	f.StringVar((*string)(&q.Status), "status", "", "pending, processed, failed or dead")
	return p.inTenant(c, func(ctx context.Context, t *client.Tenant, _ []string) error {
		l, err := t.Inbox(ctx, q, o)
		if err != nil {
			return err
		}
		return printList(p, l, "EVENT PROVIDER TOPIC STATUS RECEIVED PROCESSED ATTEMPTS ERROR", func(i eventhose.InboxItem) []string {
			return []string{oneLine(i.Event), i.Provider, oneLine(i.Topic), string(i.Status), stamp(i.Received), stamp(i.Processed), strconv.Itoa(i.Attempts), oneLine(i.LastError)}
		})
	})
}
