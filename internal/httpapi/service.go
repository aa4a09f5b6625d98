package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
)

// readyTime is how long the checks of /readyz may take together.
const readyTime = 5 * time.Second

// Readiness is the answer of /readyz.
type Readiness struct {
	Status string            `json:"status" enum:"ready,not ready"`
	Checks map[string]string `json:"checks" doc:"ok, or what is wrong"`
}

// BackupRequest is the body of POST /v1/backup.
type BackupRequest struct {
	Dir string `json:"dir" doc:"The name of a new directory below the one that the operator gave for backups"`
}

// BackupAnswer says where a backup is.
type BackupAnswer struct {
	Path string `json:"path"`
}

type (
	backupInput  struct{ Body BackupRequest }
	backupOutput struct{ Body BackupAnswer }
	healthOutput struct{ Body eventhose.Health }
)

// addService adds what is about the server itself.
func (a *API) addService(metrics http.Handler) {
	text := func(typ, doc string) map[string]*huma.Response {
		return map[string]*huma.Response{"200": {Description: doc, Content: map[string]*huma.MediaType{typ: {Schema: &huma.Schema{Type: huma.TypeString}}}}}
	}
	tags := []string{"service"}
	a.open(huma.Operation{OperationID: "alive", Path: "/healthz", Tags: tags, Summary: "The process runs", Responses: text("text/plain", "It does")},
		func(w http.ResponseWriter, _ *http.Request) { static(w, "text/plain; charset=utf-8", []byte("ok\n")) })
	a.open(huma.Operation{OperationID: "ready", Path: "/readyz", Tags: tags, Summary: "The server takes requests; it fails while it stops",
		Responses: map[string]*huma.Response{
			"200": a.jsonResponse("It does", schemaOf[Readiness](a)), "503": a.jsonResponse("It does not", schemaOf[Readiness](a))}},
		a.readyz)
	a.open(huma.Operation{OperationID: "metrics", Path: "/metrics", Tags: tags, Summary: "Metrics for Prometheus", Responses: text("text/plain", "The text format")},
		metrics.ServeHTTP)
	a.open(huma.Operation{OperationID: "openapi", Path: "/openapi.json", Tags: tags, Summary: "This document",
		Responses: map[string]*huma.Response{"200": a.jsonResponse("OpenAPI 3.1", &huma.Schema{Type: huma.TypeObject})}},
		zipped(func(w http.ResponseWriter, _ *http.Request) { static(w, typeJSON, a.spec) }))
	a.open(huma.Operation{OperationID: "docs", Path: "/docs", Tags: tags, Summary: "This document, to read", Responses: text("text/html", "A page")},
		zipped(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Security-Policy", docsPolicy)
			static(w, "text/html; charset=utf-8", a.docs)
		}))
	if a.backup == nil {
		return
	}
	manage(a, rule{scope: eventhose.ScopeAdmin, platform: true, maxBody: smallBody}, huma.Operation{
		OperationID: "backup", Method: http.MethodPost, Path: "/v1/backup", Tags: tags,
		Summary: "Write a backup on the server's own machine, while it works on",
	}, func(ctx context.Context, in *backupInput) (*backupOutput, error) {
		path, err := a.backup.Backup(ctx, in.Body.Dir)
		return &backupOutput{BackupAnswer{path}}, err
	})
}

// open registers a GET that needs no key.
func (a *API) open(op huma.Operation, h http.HandlerFunc) {
	op.Method = http.MethodGet
	a.direct(rule{}, op, h)
}

func static(w http.ResponseWriter, typ string, body []byte) {
	w.Header().Set("Content-Type", typ)
	_, _ = w.Write(body)
}

func (a *API) readyz(w http.ResponseWriter, r *http.Request) {
	checks, ready := a.checks(r.Context())
	out := Readiness{Status: "ready", Checks: checks}
	status := http.StatusOK
	if !ready {
		out.Status, status = "not ready", http.StatusServiceUnavailable
	}
	body, err := marshal(out)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", typeJSON)
	if status != http.StatusOK {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// checks names what has to be well for the server to take requests, each with "ok" or what is wrong.
func (a *API) checks(ctx context.Context) (checks map[string]string, ready bool) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	results := map[string]error{}
	if a.ready != nil {
		maps.Copy(results, a.ready(ctx))
	}
	if a.draining.Err() != nil {
		results["draining"] = &eventhose.Error{Code: eventhose.CodeUnavailable, Message: "the server is stopping"}
	}
	checks, ready = map[string]string{}, true
	for name, err := range results {
		checks[name] = "ok"
		if err == nil {
			continue
		}
		ready = false
		checks[name] = "failed"
		var e *eventhose.Error
		if errors.As(err, &e) && e.Code != eventhose.CodeInternal {
			checks[name] = e.Message
		}
	}
	return checks, ready
}

// addHealth adds what an operator is told of the node that answers.
func (a *API) addHealth(health func(context.Context) (eventhose.Health, error)) {
	if health == nil {
		return
	}
	manage(a, rule{scope: eventhose.ScopeAdmin, platform: true}, huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/v1/health", Tags: []string{"service"},
		Summary: "How the node that answers is: its checks, its disk or database, the other nodes",
	}, func(ctx context.Context, _ *struct{}) (*healthOutput, error) {
		ctx, cancel := context.WithTimeout(ctx, readyTime)
		defer cancel()
		checks, _ := a.checks(ctx)
		h, err := health(ctx)
		if err != nil {
			// What is wrong is what is asked for: the rest is told.
			checks["health"] = "cannot be told as a whole: the store does not answer"
			a.logger.WarnContext(ctx, "http: health cannot be told as a whole", slog.Any("error", err))
		}
		h.Checks, h.Nodes = checks, notNil(h.Nodes)
		return &healthOutput{h}, nil
	})
}
