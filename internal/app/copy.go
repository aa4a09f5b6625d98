package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/control"
	"github.com/eventhose/eventhose/internal/embedded"
	"github.com/eventhose/eventhose/internal/postgres"
	"github.com/eventhose/eventhose/internal/store"
)

// CopyOptions say what Copy copies.
type CopyOptions struct {
	// From is a data directory, To the URL of a database.
	From, To string
	Logger   *slog.Logger
	// Progress is told how far it is, by one goroutine at a time. It must not block for long.
	Progress func(CopyProgress)

	limit     store.PartLimit
	partition int64
}

// CopyProgress is how far a copy is: Events of Of, by what it is doing.
type CopyProgress struct {
	Doing      string
	Events, Of int
}

// comparing is what a copy does last.
const comparing = "comparing"

// copyingOf says what a part copies; the events come first.
func copyingOf(part *store.Part) string {
	switch {
	case len(part.IDs) > 0:
		return "copying ids"
	case len(part.Lanes) > 0:
		return "copying lanes"
	case len(part.Records) > 0:
		return "copying records"
	}
	return "copying events"
}

// Copied is what a copy has carried over.
type Copied struct {
	Logs   int `json:"logs"`
	Events int `json:"events"`
	// Bytes of the events' data.
	Bytes         int64 `json:"bytes"`
	Subscriptions int   `json:"subscriptions"`
	Attempts      int   `json:"attempts"`
	Records       int   `json:"records"`
	// Took is how long this run took.
	Took eventhose.Duration `json:"took"`
	// SecretKeyFile is the file with the key that seals secrets, "" if there is none in the data directory.
	SecretKeyFile string `json:"-"`
	// Before says that an earlier run had finished: nothing was done.
	Before bool `json:"-"`
}

// copyLimit is what one transaction writes.
var copyLimit = store.PartLimit{Rows: 5_000, Bytes: 4 << 20}

// Copy copies all that a data directory holds into an empty database, so that nodes on that go on where the server on the directory
// stopped, and compares the two. The directory is not changed. When it is interrupted, in whatever way, another call goes on
// where it was. CodeInvalid and CodeConflict with the field (--from, --to) where either cannot be used.
func Copy(ctx context.Context, o CopyOptions) (done Copied, err error) {
	began := time.Now()
	if o.limit == (store.PartLimit{}) {
		o.limit = copyLimit
	}
	if o.Progress == nil {
		o.Progress = func(CopyProgress) {}
	}
	from, err := embedded.OpenExport(o.From, embedded.Options{Logger: o.Logger})
	if err != nil {
		return done, unreadable(o.From, err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := postgres.OpenImport(ctx, o.To, from.Source(), postgres.Options{Logger: o.Logger, PartitionSize: o.partition})
	if err != nil {
		return done, intoDatabase(err)
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if result, finished := to.Finished(); finished {
		if err := json.Unmarshal(result, &done); err != nil {
			return done, fmt.Errorf("read what the finished copy was: %w", err)
		}
		done.Before = true
	} else if done, err = copyAll(ctx, o, from, to); err != nil {
		return done, intoDatabase(err)
	}
	done.Took = eventhose.Duration(time.Since(began))
	if !done.Before {
		result, err := json.Marshal(done)
		if err == nil {
			err = to.Finish(ctx, result)
		}
		if err != nil {
			return done, intoDatabase(err)
		}
	}
	if name, err := filepath.Abs(control.SecretKeyFile(o.From)); err == nil {
		if _, err := os.Stat(name); err == nil {
			done.SecretKeyFile = name
		}
	}
	return done, nil
}

func copyAll(ctx context.Context, o CopyOptions, from *embedded.Export, to *postgres.Import) (Copied, error) {
	extent, err := from.Extent(ctx)
	if err != nil {
		return Copied{}, fmt.Errorf("count what is to be copied: %w", err)
	}
	tell := func(part *store.Part) {
		o.Progress(CopyProgress{Doing: copyingOf(part), Events: int(to.Events()), Of: extent.Events})
	}
	tell(&store.Part{})
	for {
		part, err := from.Next(ctx, to.Position(), o.limit)
		if err != nil {
			return Copied{}, err
		}
		if part == nil {
			break
		}
		if err := addSilent(ctx, from, part); err != nil {
			return Copied{}, err
		}
		if err := to.Write(ctx, part); err != nil {
			return Copied{}, err
		}
		tell(part)
	}
	if err := to.Analyze(ctx); err != nil {
		return Copied{}, err
	}
	c := comparison{from: from, to: to, limit: o.limit, tell: func(events int) {
		o.Progress(CopyProgress{Doing: comparing, Events: events, Of: extent.Events})
	}}
	if err := c.all(ctx); err != nil {
		return Copied{}, err
	}
	return Copied{Logs: extent.Logs, Events: c.events, Bytes: extent.Bytes, Subscriptions: c.rows.Lanes, Attempts: c.attempts, Records: c.rows.Records}, nil
}

// addSilent adds the logs of tenants that have none yet to what is copied about them: whoever has read one holds a cursor of its incarnation.
func addSilent(ctx context.Context, from *embedded.Export, part *store.Part) error {
	seen := map[eventhose.TenantID]bool{}
	for _, tenant := range tenantsOf(part) {
		if seen[tenant] {
			continue
		}
		seen[tenant] = true
		h, err := from.Head(ctx, tenant)
		if err != nil {
			return fmt.Errorf("read the head of log %s: %w", tenant, err)
		}
		if h.Last == 0 {
			part.Logs = append(part.Logs, store.LogHead{Tenant: tenant, Head: h})
		}
	}
	return nil
}

// tenantsOf are those that have lanes or a record of their own in a part.
func tenantsOf(part *store.Part) (tenants []eventhose.TenantID) {
	for i := range part.Lanes {
		tenants = append(tenants, part.Lanes[i].Lane.Tenant)
	}
	for _, r := range part.Records {
		if tenant, ok := control.TenantOf(r); ok {
			tenants = append(tenants, tenant)
		}
	}
	return tenants
}

// unreadable says what to do about a data directory that cannot be copied, where that is plain.
func unreadable(dir string, err error) error {
	switch {
	case errors.Is(err, store.ErrLocked):
		return &eventhose.Error{Code: eventhose.CodeConflict, Field: "--from", Message: "another process has " + dir + " open", Fix: "stop the server on it: what it would still change would not be copied", Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--from", Message: "this user may not use " + dir, Fix: "run it as the user that the server runs as", Err: err}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "--from", Message: dir + " is no data directory", Fix: "name the directory that the server was given with --data", Err: err}
	}
	return fmt.Errorf("open the data directory: %w", err)
}

// intoDatabase says which option the database was given by, and what to do when it is away.
func intoDatabase(err error) error {
	var coded *eventhose.Error
	switch {
	case errors.As(err, &coded) && coded.Field == "--database-url":
		here := *coded
		here.Field = "--to"
		return &here
	case errors.As(err, &coded) || !errors.Is(err, store.ErrUnavailable):
		return err
	}
	return &eventhose.Error{Code: eventhose.CodeUnavailable, Field: "--to", Message: "the database cannot be reached now", Fix: "run the same command again when it can: it goes on where it was", Err: err}
}
