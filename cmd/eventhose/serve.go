package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/app"
)

// serverFlags are the options of a server, as flags and as EVENTHOSE_ variables.
type serverFlags struct {
	listen, data, backupDir, adminKey, secretKey, logLevel, publicURL string
	databaseURL, node                                                 string
	allow, portalOrigins                                              []string
	oidcIssuer, oidcClientID, oidcClientSecret                        string
	oidcAllow                                                         []string
	auditRetention                                                    time.Duration
	maxInFlight                                                       int
	drain, metricsRetention                                           time.Duration
}

const defaultListen = "127.0.0.1:8080"

func (s *serverFlags) add(f *pflag.FlagSet, data, logLevel string) {
	f.StringVar(&s.listen, "listen", defaultListen, "the address to serve on; port 0 takes a free one")
	f.StringSliceVar(&s.portalOrigins, "portal-origins", nil, "origins whose pages may show the portal within themselves, such as https://app.example.com (default none)")
	f.StringVar(&s.publicURL, "public-url", "", "where the world reaches this server, such as https://hooks.example.com, for the addresses of sources (default where requests come)")
	f.StringVar(&s.data, "data", data, "the data directory, which is made if it does not exist")
	f.StringVar(&s.backupDir, "backup-dir", "", "where backups that are asked for over HTTP are made (default \"backups\" beside the data directory)")
	f.StringVar(&s.adminKey, "admin-key", "", "an API key for everything, beside the stored ones; without any, the first start makes one and prints it")
	f.StringVar(&s.secretKey, "secret-key", "", "base64 of 32 bytes that encrypt stored secrets (default a file in the data directory, made on the first start)")
	f.StringSliceVar(&s.allow, "allow-networks", nil, "CIDRs that destinations may reach beside the public internet, over http as well")
	f.StringVar(&s.logLevel, "log-level", logLevel, "debug, info, warn or error")
	f.IntVar(&s.maxInFlight, "max-in-flight", 0, "how many deliveries at once, over all subscriptions; 0 is the default")
	f.DurationVar(&s.auditRetention, "audit-retention", eventhose.AuditKept, "how long it is kept who has changed what")
	f.StringVar(&s.oidcIssuer, "oidc-issuer", "", "the URL of an identity provider that operators may sign in with (OpenID Connect)")
	f.StringVar(&s.oidcClientID, "oidc-client-id", "", "what this server is called there")
	f.StringVar(&s.oidcClientSecret, "oidc-client-secret", "", "its secret there, if it has one")
	f.StringSliceVar(&s.oidcAllow, "oidc-allow", nil, "who may sign in, as an operator of all tenants: verified e-mail addresses, @domain, or claim=value")
	f.DurationVar(&s.drain, "drain", 30*time.Second, "how long a stop waits for what is under way")
	f.DurationVar(&s.metricsRetention, "metrics-retention", eventhose.DefaultMetricsRetention, "how long metrics over time are kept")
	f.VisitAll(func(f2 *pflag.Flag) {
		variable(f, f2.Name, "EVENTHOSE_"+strings.ToUpper(strings.ReplaceAll(f2.Name, "-", "_")))
	})
}

// options checks the flags; each error names its flag and shows no key.
func (s *serverFlags) options(p *program) (app.Options, error) {
	o := app.Options{Listen: s.listen, Data: s.data, BackupDir: s.backupDir, AdminKey: eventhose.Secret(s.adminKey), MaxInFlight: s.maxInFlight,
		PortalOrigins: s.portalOrigins, MetricsRetention: s.metricsRetention, Version: p.version}
	var err error
	if s.publicURL != "" {
		u, err := url.Parse(s.publicURL)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return o, &usageError{what: "--public-url must be an absolute http or https URL without user, query and fragment", fix: "--public-url https://hooks.example.com"}
		}
		o.PublicURL = strings.TrimRight(s.publicURL, "/")
	}
	if s.auditRetention != 0 && s.auditRetention < time.Hour {
		return o, &usageError{what: "--audit-retention must be at least 1h", fix: "--audit-retention 2160h"}
	}
	o.AuditRetention = s.auditRetention
	o.OIDC = app.OIDC{Issuer: s.oidcIssuer, ClientID: s.oidcClientID, ClientSecret: eventhose.Secret(s.oidcClientSecret), Allow: s.oidcAllow}
	if s.oidcIssuer == "" && (s.oidcClientID != "" || s.oidcClientSecret != "" || len(s.oidcAllow) > 0) {
		return o, &usageError{what: "--oidc-issuer is missing beside the other --oidc- flags", fix: "--oidc-issuer https://id.example.com"}
	}
	if o.AllowNetworks, err = networks(s.allow); err != nil {
		return o, err
	}
	if _, port, err := net.SplitHostPort(s.listen); err != nil {
		return o, &usageError{what: fmt.Sprintf("--listen: %q is not a host and a port", s.listen), fix: "--listen " + defaultListen}
	} else if _, err := net.LookupPort("tcp", port); err != nil {
		return o, &usageError{what: fmt.Sprintf("--listen: %q has no port that there is", s.listen), fix: "--listen " + defaultListen}
	}
	if s.secretKey != "" {
		if o.SecretKey, err = base64.StdEncoding.DecodeString(s.secretKey); err != nil || len(o.SecretKey) != 32 {
			return o, &usageError{what: "--secret-key is not base64 of 32 bytes", fix: "openssl rand -base64 32"}
		}
	}
	if strings.ContainsFunc(s.adminKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return o, &usageError{what: "--admin-key must be printable characters without spaces", fix: "openssl rand -hex 24"}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return o, &usageError{what: "--log-level must be debug, info, warn or error"}
	}
	if s.drain < 0 || s.maxInFlight < 0 {
		return o, &usageError{what: "--drain and --max-in-flight must not be negative"}
	}
	if s.metricsRetention < eventhose.MinMetricsRetention || s.metricsRetention > eventhose.MaxMetricsRetention {
		return o, &usageError{what: fmt.Sprintf("--metrics-retention must be between %v and %v", eventhose.MinMetricsRetention, eventhose.MaxMetricsRetention), fix: "--metrics-retention 720h"}
	}
	var handler slog.Handler = slog.NewTextHandler(p.err, &slog.HandlerOptions{Level: level})
	if p.output != "text" {
		handler = slog.NewJSONHandler(p.err, &slog.HandlerOptions{Level: level})
	}
	o.Logger = slog.New(handler)
	if s.adminKey != "" && len(s.adminKey) < 16 {
		o.Logger.Warn("the admin key is short enough to be guessed; make one with: openssl rand -hex 24")
	}
	// What libraries write to the standard log may hold what strangers sent.
	log.SetFlags(0)                                                     //nolint:forbidigo // the standard log is led into ours
	log.SetOutput(slog.NewLogLogger(handler, slog.LevelDebug).Writer()) //nolint:forbidigo // the standard log is led into ours
	return o, nil
}

func networks(allow []string) ([]netip.Prefix, error) {
	prefixes := make([]netip.Prefix, 0, len(allow))
	for _, s := range allow {
		s = strings.TrimSpace(s)
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, &usageError{what: fmt.Sprintf("--allow-networks: %q is not a CIDR", s), fix: "--allow-networks 10.0.0.0/8,fd00::/8"}
		}
		if prefix != prefix.Masked() {
			return nil, &usageError{what: fmt.Sprintf("--allow-networks: %q has bits behind its prefix", s), fix: "--allow-networks " + prefix.Masked().String()}
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

func (p *program) serveCommand() *cobra.Command {
	var s serverFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server. The first start makes the data directory, the tenant "default", and unless --admin-key is given an admin key,
which is printed on stderr this once. A line that begins with "ready" says that it takes requests.

The first SIGINT or SIGTERM takes no more requests and finishes what is under way; the second does not wait for that. What was
accepted is on disk either way.

With --database-url everything is kept in PostgreSQL, 15 or newer, and any number of nodes run side by side over it.`,
		Example: `  eventhose serve --data /var/lib/eventhose
  eventhose serve --database-url postgres://eventhose@db.internal/eventhose   # as many nodes as you like
  EVENTHOSE_ADMIN_KEY_FILE=/run/secrets/admin eventhose serve --listen 0.0.0.0:8080 --data /var/lib/eventhose`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := s.options(p)
			if err != nil {
				return err
			}
			o.DatabaseURL, o.Node = s.databaseURL, s.node
			if o.DatabaseURL != "" {
				if c.Flags().Changed("data") {
					o.Logger.Warn("everything is in the database; --data is not used (eventhose copy moves a data directory there)", "data", o.Data)
				}
				o.Data = ""
			}
			if _, set := p.env("GOGC"); !set {
				tuning := allowGarbage()
				defer tuning.stop()
			}
			a, err := app.New(o)
			if err != nil {
				return err
			}
			if err := a.Start(c.Context()); err != nil {
				return fmt.Errorf("start: %w", err)
			}
			if key, made := a.FirstKey(); made {
				p.tell("admin key: "+string(key)+"  (shown this once)", map[string]string{"admin_key": string(key)})
			}
			p.tell("ready http://"+a.Addr(), map[string]any{"ready": map[string]string{"url": "http://" + a.Addr()}})
			select {
			case <-c.Context().Done():
			case <-a.Done():
			}
			return errors.Join(a.Err(), p.stop(a, s.drain))
		},
	}
	s.add(c.Flags(), "eventhose-data", "info")
	c.Flags().StringVar(&s.databaseURL, "database-url", "", "a PostgreSQL URL: any number of nodes keep everything there, instead of in a data directory")
	c.Flags().StringVar(&s.node, "node", "", "the name of this node among them (default one made at random)")
	variable(c.Flags(), "database-url", "EVENTHOSE_DATABASE_URL")
	variable(c.Flags(), "node", "EVENTHOSE_NODE")
	return c
}

// tell prints a line for people on stderr, or with -o json a line for programs.
func (p *program) tell(text string, v any) {
	if p.output == "text" {
		fmt.Fprintln(p.err, text)
		return
	}
	_ = writeJSON(p.err, v, "") // fails only if stderr is gone, and then nobody is left to tell
}

// stop ends a server: at once when the user asks a second time.
func (p *program) stop(a *app.App, drain time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- a.Stop(ctx) }()
	select {
	case err := <-stopped:
		if ctx.Err() != nil {
			return &failure{exit: exitTimeout, code: "drain", what: "what was under way did not end within --drain", fix: "nothing is lost: the next start goes on with it", err: err}
		}
		return err
	case <-p.cut:
		cancel()
		return errors.Join(<-stopped, errInterrupted)
	}
}
