package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose/sign"
)

const (
	maxBody    = 32 << 20
	maxHeaders = 256 << 10
)

func (p *program) verifyCommand() *cobra.Command {
	var secrets []string
	var headers, body, at string
	var given []string
	var tolerance time.Duration
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check the signature of a webhook that arrived",
		Long: `Check the signature of a webhook (Standard Webhooks v1 and v1a), without a server. The body is stdin, or --body, byte for
byte as it was received. Exits with 7 and says which check failed if it is not valid.`,
		Example: `  eventhose verify --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw --headers headers.txt < body.json
  eventhose verify --secret @secret.txt -H 'webhook-id: evt_1' -H 'webhook-timestamp: 1700000000' -H 'webhook-signature: v1,…' --body @body.json`,
		Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			keys, err := parseKeys(p, secrets, sign.ParseVerifier)
			if err != nil {
				return err
			}
			h, err := p.headers(headers, given)
			if err != nil {
				return err
			}
			b, err := p.input("body", body, maxBody)
			if err != nil {
				return err
			}
			now, err := moment("at", at)
			if err != nil {
				return err
			}
			if b, err = decompressed(h, b); err != nil {
				return err
			}
			if err := sign.Verify(h, b, now, tolerance, keys...); err != nil {
				return &failure{exit: exitExpectation, code: "not_valid", what: strings.TrimPrefix(err.Error(), "sign: "), fix: verifyFix(err), err: err}
			}
			seconds, err := strconv.ParseInt(h.Get(sign.HeaderTimestamp), 10, 64)
			if err != nil {
				return fmt.Errorf("reading %s: %w", sign.HeaderTimestamp, err)
			}
			age := now.Sub(time.Unix(seconds, 0)).Round(time.Second)
			return p.print(struct {
				Valid bool   `json:"valid"`
				ID    string `json:"id"`
				Age   string `json:"age"`
			}{true, h.Get(sign.HeaderID), age.String()}, func(w io.Writer) {
				fmt.Fprintf(w, "valid  id %s  age %s\n", oneLine(h.Get(sign.HeaderID)), age)
			})
		},
	}
	f := c.Flags()
	f.StringArrayVar(&secrets, "secret", nil, `a secret ("whsec_…") or public key ("whpk_…"), or @file; any of several may match`)
	f.StringVar(&headers, "headers", "", "a file with the headers, one a line")
	f.StringArrayVarP(&given, "header", "H", nil, "one header, as \"name: value\"")
	f.StringVar(&body, "body", "-", "the body: text, @file, or - for stdin")
	f.DurationVar(&tolerance, "tolerance", sign.DefaultTolerance, "how far the time may be off, either way")
	f.StringVar(&at, "at", "", "verify as of this time (RFC 3339) instead of now")
	variable(f, "secret", "EVENTHOSE_WEBHOOK_SECRET")
	return c
}

// decompressed answers the body that was signed: with Content-Encoding gzip, what it was before it was compressed. One that
// was decompressed already stays as it is.
func decompressed(h http.Header, body []byte) ([]byte, error) {
	if !strings.EqualFold(h.Get("Content-Encoding"), "gzip") || !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
		return body, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(r, maxBody+1))
	}
	if err != nil || len(body) > maxBody {
		return nil, &usageError{what: "the body cannot be decompressed", fix: "give it as it was received, or decompressed"}
	}
	return body, nil
}

func (p *program) signCommand() *cobra.Command {
	var secrets []string
	var id, body, at string
	c := &cobra.Command{
		Use:   "sign",
		Short: "Print the headers that sign a body",
		Long: `Print the three headers that sign a body (Standard Webhooks v1 with a "whsec_…" secret, v1a with a "whsk_…" key), for the
tests of a receiver. The body is stdin, or --body.`,
		Example: "  eventhose sign --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw --id msg_1 < body.json > headers.txt",
		Args:    args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			keys, err := parseKeys(p, secrets, sign.ParseSigner)
			if err != nil {
				return err
			}
			b, err := p.input("body", body, maxBody)
			if err != nil {
				return err
			}
			now, err := moment("at", at)
			if err != nil {
				return err
			}
			signature, err := sign.Sign(id, now, b, keys...)
			if err != nil {
				return &usageError{what: strings.TrimPrefix(err.Error(), "sign: ")}
			}
			seconds := strconv.FormatInt(now.Unix(), 10)
			return p.print(map[string]string{sign.HeaderID: id, sign.HeaderTimestamp: seconds, sign.HeaderSignature: signature}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %s\n%s: %s\n%s: %s\n", sign.HeaderID, id, sign.HeaderTimestamp, seconds, sign.HeaderSignature, signature)
			})
		},
	}
	f := c.Flags()
	f.StringArrayVar(&secrets, "secret", nil, `a secret ("whsec_…") or signing key ("whsk_…"), or @file; several sign side by side`)
	f.StringVar(&id, "id", "msg_test", "the webhook-id")
	f.StringVar(&body, "body", "-", "the body: text, @file, or - for stdin")
	f.StringVar(&at, "at", "", "sign as of this time (RFC 3339) instead of now")
	variable(f, "secret", "EVENTHOSE_WEBHOOK_SECRET")
	return c
}

// parseKeys reads the keys of --secret, which the errors do not show.
func parseKeys[K any](p *program, secrets []string, parse func(string) (K, error)) ([]K, error) {
	if len(secrets) == 0 {
		return nil, &usageError{what: "--secret is missing", fix: "give --secret, or set EVENTHOSE_WEBHOOK_SECRET or EVENTHOSE_WEBHOOK_SECRET_FILE"}
	}
	keys := make([]K, len(secrets))
	for i, s := range secrets {
		text, err := p.input("secret", s, maxFileValue)
		if err != nil {
			return nil, err
		}
		if keys[i], err = parse(strings.TrimSpace(string(text))); err != nil {
			return nil, &usageError{what: "--secret: " + strings.TrimPrefix(err.Error(), "sign: "), fix: "use the secret as the subscription showed it"}
		}
	}
	return keys, nil
}

// moment reads a time flag; "" is now.
func moment(flag, s string) (time.Time, error) {
	if s == "" {
		return time.Now(), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, &usageError{what: "--" + flag + " is not a time such as 2026-01-02T15:04:05Z"}
	}
	return t, nil
}

// verifyFix says what to do about a webhook that does not verify.
func verifyFix(err error) string {
	switch {
	case errors.Is(err, sign.ErrTooOld), errors.Is(err, sign.ErrTooNew):
		return "check the clock, or say when it came with --at; --tolerance is how far off it may be"
	case errors.Is(err, sign.ErrMissingHeader):
		return "give the headers that came with it: --headers FILE, or -H 'webhook-id: …' for each"
	}
	return "verify the raw body as it arrived, before anything parses it, with the secret of this subscription"
}

// headers reads "name: value" lines. A request or status line before them is skipped, so that what curl -i and most
// logs print can be used as it is.
func (p *program) headers(file string, given []string) (http.Header, error) {
	var text []byte
	if file != "" {
		var err error
		if text, err = p.input("headers", "@"+strings.TrimPrefix(file, "@"), maxHeaders); err != nil {
			return nil, err
		}
	}
	lines := append(strings.Split(string(text), "\n"), given...)
	h := http.Header{}
	for i, line := range lines {
		line = strings.TrimRight(line, "\r")
		name, value, ok := strings.Cut(line, ":")
		switch {
		case line == "":
		case i == 0 && file != "" && (strings.HasPrefix(line, "HTTP/") || strings.Contains(line, " HTTP/")):
		case !ok:
			return nil, &usageError{what: fmt.Sprintf("line %d of the headers is not \"name: value\"", i+1)}
		default:
			h.Add(textproto.TrimString(name), textproto.TrimString(value))
		}
	}
	return h, nil
}
