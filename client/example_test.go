package client_test

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// A worker may be handed an event twice: it may die after its work and before the acknowledgement. So the work and a note of
// the event's id are one transaction.
func ExampleTenant_Work() {
	var db *sql.DB // a database with the tables done (event_id PRIMARY KEY) and mails (body)
	c, err := client.New("http://127.0.0.1:8080", "key")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err = c.Tenant("default").Work(ctx, "sub_01h455vb4pex5vsknk084sn02q", 16, func(ctx context.Context, e eventhose.Event) error {
		err := sendOnce(ctx, db, e)
		if errors.Is(err, sql.ErrConnDone) {
			return client.RetryAfter(time.Minute, err)
		}
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}

func sendOnce(ctx context.Context, db *sql.DB, e eventhose.Event) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing is left to undo after Commit
	done, err := tx.ExecContext(ctx, "INSERT INTO done (event_id) VALUES ($1) ON CONFLICT DO NOTHING", e.ID)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return err // it was done before
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO mails (body) VALUES ($1)", string(e.Data)); err != nil {
		return err
	}
	return tx.Commit()
}
