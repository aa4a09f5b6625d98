// Package deploy checks what stands in deploy/ against servers that run. It is a module of its own, so that nobody who uses
// Eventhose gets Prometheus with it.
package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
	"github.com/eventhose/eventhose/internal/pgtest"
)

const adminKey = eventhose.Secret("an-admin-key-for-tests")

// scraped are the labels that Prometheus adds to what it scrapes.
var scraped = []string{"instance", "job"}

// series is one that a server shows: its labels, the name among them.
type series map[string]string

// Every metric that the dashboard and the alert rules name is there, with the labels that they select by and tell apart by.
func TestMetricsExist(t *testing.T) {
	shown, free := embedded(t)
	shown = slices.Concat(shown, full(t, free), database(t))
	queries := 0
	for where, exprs := range map[string][]string{"alerts.yml": alerts(t), "eventhose.json": dashboard(t)} {
		for _, expr := range exprs {
			queries++
			for _, fault := range faults(expr, shown) {
				t.Errorf("%s: %s: %s", where, expr, fault)
			}
		}
	}
	t.Logf("%d queries over %d series", queries, len(shown))
	if queries < 40 {
		t.Errorf("only %d queries were looked at", queries)
	}
}

// The checker itself, on planted faults.
func TestFaults(t *testing.T) {
	shown := []series{{"__name__": "a_total", "state": "x"}, {"__name__": "b_bucket", "le": "1"}}
	for expr, want := range map[string]string{
		`rate(a_total{state="x", instance=~".*"}[5m])`: "",
		`rate(a_totals[5m])`:                           "no series a_totals",
		`a_total{state="y"}`:                           `no series a_total{state="y"}`,
		`a_total{status="x"}`:                          "no series",
		`a_total{state=~"x|y"}`:                        "",
		`sum by (state, job) (a_total) > 0`:            "",
		`sum by (status) (a_total)`:                    "a_total has no label status",
		`histogram_quantile(0.9, sum by (le, state) (rate(b_bucket[1m])))`: "b_bucket has no label state",
		`a_total / on (status) a_total`:                                    "a_total has no label status",
		`sum(`:                                                             "does not parse",
	} {
		got := strings.Join(faults(expr, shown), "; ")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}

// faults answers what a query asks for that is not shown.
func faults(expr string, shown []series) (faults []string) {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return []string{"does not parse: " + err.Error()}
	}
	labelled := func(below parser.Node, names []string) {
		parser.Inspect(below, func(n parser.Node, _ []parser.Node) error {
			v, ok := n.(*parser.VectorSelector)
			if !ok {
				return nil
			}
			for _, name := range names {
				if !slices.Contains(scraped, name) && !slices.ContainsFunc(shown, func(s series) bool { return s["__name__"] == v.Name && s[name] != "" }) {
					faults = append(faults, fmt.Sprintf("%s has no label %s", v.Name, name))
				}
			}
			return nil
		})
	}
	parser.Inspect(parsed, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			if !slices.ContainsFunc(shown, func(s series) bool { return selects(n, s) }) {
				faults = append(faults, "no series "+n.String())
			}
		case *parser.AggregateExpr:
			labelled(n.Expr, n.Grouping)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				labelled(n, n.VectorMatching.MatchingLabels)
			}
		}
		return nil
	})
	return faults
}

func selects(v *parser.VectorSelector, s series) bool {
	for _, m := range v.LabelMatchers {
		if !slices.Contains(scraped, m.Name) && (!m.Matches(s[m.Name]) || m.Type == labels.MatchEqual && m.Value == "" || s[m.Name] == "") {
			return false
		}
	}
	return true
}

// alerts are the expressions of the rules, which must be what Prometheus loads.
func alerts(t *testing.T) (exprs []string) {
	t.Helper()
	groups, errs := rulefmt.ParseFile("../../deploy/prometheus/alerts.yml", false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil {
		t.FailNow()
	}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			exprs = append(exprs, r.Expr)
			if r.Alert == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%+v does not say all", r)
			}
		}
	}
	return exprs
}

// dashboard are the expressions of the dashboard, with what Grafana puts in place of its variables.
func dashboard(t *testing.T) (exprs []string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana/eventhose.json")
	if err != nil {
		t.Fatal(err)
	}
	var d any
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	var look func(v any)
	look = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, value := range v {
				if expr, ok := value.(string); ok && name == "expr" {
					exprs = append(exprs, expr)
				}
				if query, ok := value.(string); ok && strings.HasPrefix(query, "label_values(") {
					metric, _, _ := strings.Cut(strings.TrimPrefix(query, "label_values("), ",")
					exprs = append(exprs, metric)
				}
				look(value)
			}
		case []any:
			for _, value := range v {
				look(value)
			}
		}
	}
	look(d)
	filled := strings.NewReplacer("$__rate_interval", "1m", "$__interval", "1m", "$instance", ".*")
	for i := range exprs {
		exprs[i] = filled.Replace(exprs[i])
	}
	return exprs
}

// start runs a server until the test ends, and answers a client of it and where it is.
func start(t *testing.T, o app.Options) (*client.Client, string) {
	t.Helper()
	o.Listen, o.AdminKey, o.SecretKey = "127.0.0.1:0", adminKey, make([]byte, 32)
	o.AllowNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	a, err := app.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	url := "http://" + a.Addr()
	c, err := client.New(url, adminKey)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := a.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return c, url
}

// scrape answers what a server shows.
func scrape(t *testing.T, url string) (all []series) {
	t.Helper()
	res, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			with := func(suffix string, more ...string) {
				s := series{"__name__": name + suffix}
				for _, l := range m.GetLabel() {
					s[l.GetName()] = l.GetValue()
				}
				for pair := range slices.Chunk(more, 2) {
					s[pair[0]] = pair[1]
				}
				all = append(all, s)
			}
			switch f.GetType() {
			case dto.MetricType_HISTOGRAM:
				with("_bucket", "le", "+Inf")
				with("_sum")
				with("_count")
			default:
				with("")
			}
		}
	}
	return all
}

// embedded is what a server shows that has had a bit of everything, and how much room its disk has.
func embedded(t *testing.T) (shown []series, free int64) {
	c, url := start(t, app.Options{Data: filepath.Join(t.TempDir(), "data")})
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer well.Close()
	gone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }))
	defer gone.Close()
	ctx, tenant := t.Context(), c.Tenant("default")
	for _, hook := range []string{well.URL, gone.URL} {
		sub, err := tenant.CreateSubscription(ctx, client.NewSubscription{Destination: eventhose.Destination{Type: eventhose.DestinationWebhook, URL: hook}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tenant.Test(ctx, sub.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tenant.Append(ctx, eventhose.Event{Type: "a.b", Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	source, err := tenant.CreateSource(ctx, eventhose.Source{Provider: "github", Secrets: []eventhose.Secret{"long-enough"}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(source.URL, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	streaming, stop := context.WithCancel(ctx)
	defer stop()
	for _, err := range tenant.Follow(streaming, client.FollowOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	health, err := c.Health(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return scrape(t, url), health.Disk.Free
}

// full is what a server shows whose disk has no room for events, since more is to stay free than is.
func full(t *testing.T, free int64) []series {
	c, url := start(t, app.Options{Data: filepath.Join(t.TempDir(), "data"), MinFree: 3 * free})
	_, err := c.Tenant("default").Append(t.Context(), eventhose.Event{Type: "a.b", Data: []byte("{}")})
	if eventhose.CodeOf(err) != eventhose.CodeStorageFull {
		t.Fatalf("an append to a full disk: %v", err)
	}
	return scrape(t, url)
}

// database is what a node over PostgreSQL shows.
func database(t *testing.T) []series {
	_, url := start(t, app.Options{DatabaseURL: pgtest.Database(t)})
	return scrape(t, url)
}
