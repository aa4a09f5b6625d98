package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/eventlog"
	"github.com/eventhose/eventhose/internal/httpapi"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// opened is a store with what depends on which one it is.
type opened struct {
	store.Store
	name      string // in /readyz
	secretKey []byte
	ready     func(context.Context) error
	backups   httpapi.Backups // nil if it makes none
	// cached is how long what other nodes may change is remembered; 0 if there are none.
	cached time.Duration
	// embedded is set if this process has the store for itself, database if other nodes may have it open.
	embedded *embedded.Store
	database *postgres.Store
}

const (
	// cachedFor is how long a node may not know of what another has changed if it was not told: a revoked key, a tenant's retention.
	cachedFor = 5 * time.Second
	// waitPoll and placePoll are how late something is seen at most that this node was not told of.
	waitPoll  = time.Second
	placePoll = time.Second
)

// open opens the store that the options name.
func (a *App) open(ctx context.Context, m *metrics) (*opened, error) {
	if a.opts.DatabaseURL != "" {
		return a.openDatabase(ctx, m)
	}
	dir, options := a.opts.Data, embedded.Options{Logger: a.logger, MinFree: a.opts.MinFree, OnFatal: a.fail, Synced: m.fsync}
	if a.opts.Memory {
		dir, options.FS, options.MinFree = "memory", vfs.NewMem(), -1
	}
	st, err := embedded.Open(dir, options)
	if err != nil {
		return nil, unopened(a.opts.Data, err)
	}
	o := &opened{Store: st, embedded: st, name: "store", secretKey: a.opts.SecretKey,
		ready: func(ctx context.Context) error { _, err := st.Head(ctx, defaultTenant); return err }}
	a.onStop("store", func(context.Context) error { return st.Close() })
	m.watchStore(st)
	if !a.opts.Memory {
		o.backups = backups{st, a.opts.BackupDir}
	}
	if o.secretKey == nil {
		if o.secretKey, err = control.SecretKey(ctx, st, a.opts.Data); err != nil {
			return nil, fmt.Errorf("read the secret key: %w", err)
		}
	}
	return o, nil
}

func (a *App) openDatabase(ctx context.Context, m *metrics) (*opened, error) {
	if a.opts.SecretKey == nil {
		return nil, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--secret-key", Message: "is required with --database-url: all nodes encrypt with the same one",
			Fix: "EVENTHOSE_SECRET_KEY=$(openssl rand -base64 32), the same for every node, and keep it where backups of the database are not"}
	}
	st, err := postgres.Open(ctx, a.opts.DatabaseURL, postgres.Options{Logger: a.logger, Tell: func(kind string) bool { return control.Tells(kind) || deliver.Tells(kind) }})
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", away(err))
	}
	a.onStop("store", func(context.Context) error { return st.Close() })
	m.watchDatabase(st)
	return &opened{Store: st, name: "database", secretKey: a.opts.SecretKey, ready: st.Ready, cached: cachedFor, database: st}, nil
}

// follow takes in what other nodes do, and does for the logs of this one what a single node does by itself.
func (a *App) follow(st *postgres.Store, ctl *control.Control, log *eventlog.Log, engine *deliver.Engine, forget func(eventhose.TenantID)) {
	following, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() {
		st.Listen(following, func(h postgres.Hint) {
			switch h.Kind {
			case postgres.HintAppended:
				log.Grown(h.Tenant)
				engine.Appended(h.Tenant)
			case postgres.HintErased:
				engine.Erased(h.Tenant, h.Sequence)
				forget(h.Tenant)
			case postgres.HintRecord:
				ctl.Heard(h.Record, h.Tenant, h.ID)
				engine.Heard(h.Record, h.ID)
			case postgres.HintFreed:
				engine.Freed()
			case postgres.HintUnplaced:
				log.Unplaced()
			case postgres.HintInterrupted:
				ctl.Unheard() // what streams keep of an erased event they keep for a second
				engine.ChangedAll()
				engine.Unheard()
				log.Unplaced()
			}
		})
	})
	loops.Go(func() { log.RunPoll(following, waitPoll) })
	loops.Go(func() { log.RunPlacing(following, st, placePoll) })
	a.onStop("other nodes", func(context.Context) error { stop(); loops.Wait(); return nil })
}

// unopened says what to do about a data directory that cannot be opened, where that is plain.
func unopened(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "data", Message: "this user may not write in " + dir, Fix: "change its owner, or name another directory with --data", Err: err}
	case errors.Is(err, syscall.ENOTDIR):
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "data", Message: dir + " is not a directory", Fix: "name another with --data", Err: err}
	case errors.Is(err, store.ErrLocked):
		return &eventhose.Error{Code: eventhose.CodeConflict, Field: "data", Message: "another process has " + dir + " open", Fix: "stop it, or name another directory with --data", Err: err}
	}
	return fmt.Errorf("open the data directory: %w", err)
}

// Migrate brings the schema of a database up to date and answers what was done.
func Migrate(ctx context.Context, url string) ([]string, error) {
	taken, err := postgres.Migrate(ctx, url)
	var done []string
	for _, m := range taken {
		done = append(done, fmt.Sprintf("%04d %s", m.Version, m.Name))
	}
	return done, away(err)
}

// away says what to do about a database that cannot be reached.
func away(err error) error {
	if !errors.Is(err, store.ErrUnavailable) || errors.As(err, new(*eventhose.Error)) {
		return err
	}
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Field: "--database-url", Message: "the database cannot be reached now",
		Fix: "start it, or mend the URL: eventhose doctor with the same --database-url looks at it", Err: err}
}

// Database is what can be told of a database without changing anything.
type Database = postgres.Inspection

// InspectDatabase looks at a database that nodes are to use.
func InspectDatabase(ctx context.Context, url string) (Database, error) {
	return postgres.Inspect(ctx, url)
}
