// Worker takes charges that Stripe sent from a source's inbox and books them in PostgreSQL: each once, whenever it, the
// server or the database is killed. Run as many as you like.
//
//	psql "$DATABASE_URL" --file examples/worker/schema.sql
//	DATABASE_URL=postgres://… EVENTHOSE_URL=http://127.0.0.1:8080 EVENTHOSE_API_KEY=… go run ./examples/worker sub_…
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// lease is how soon another worker takes over from one that has died.
const lease = 3 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, log io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: worker SUBSCRIPTION")
	}
	db, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close()
	c, err := client.New(os.Getenv("EVENTHOSE_URL"), eventhose.Secret(os.Getenv("EVENTHOSE_API_KEY")))
	if err != nil {
		return err
	}
	defer c.Close()
	trouble := func(err error) { fmt.Fprintln(log, err) }
	return c.Tenant("default").Work(ctx, eventhose.SubscriptionID(args[0]), 8, func(ctx context.Context, e eventhose.Event) error {
		return patiently(ctx, db, e, log, trouble)
	}, client.WithLease(lease), client.WithTrouble(trouble))
}

// patiently does the work of an event, again and again while the database is away: that is no fault of the event's. Meanwhile
// Work keeps it this worker's.
func patiently(ctx context.Context, db *pgxpool.Pool, e eventhose.Event, log io.Writer, trouble func(error)) error {
	for {
		conn, err := db.Acquire(ctx)
		away := err != nil
		if err == nil {
			err = once(ctx, conn, e, book, log)
			away = conn.Conn().IsClosed()
			conn.Release()
		}
		if err == nil || !away || ctx.Err() != nil {
			return err
		}
		trouble(err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return err
		}
	}
}

// once does the work of an event and notes its id, both or neither.
func once(ctx context.Context, db *pgxpool.Conn, e eventhose.Event, work func(context.Context, pgx.Tx, eventhose.Event) error, log io.Writer) error {
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		noted, err := tx.Exec(ctx, "INSERT INTO done (source, event) VALUES ($1, $2) ON CONFLICT DO NOTHING", e.Scope, e.ID)
		if err != nil {
			return err
		}
		if noted.RowsAffected() == 0 {
			fmt.Fprintln(log, e.ID, "was done before")
			return nil
		}
		return work(ctx, tx, e)
	})
}

// book adds a charge to its customer's account.
func book(ctx context.Context, tx pgx.Tx, e eventhose.Event) error {
	if e.Type != "stripe.charge.succeeded" {
		return nil
	}
	var body struct {
		Data struct {
			Object struct {
				Customer string
				Amount   int64
			}
		}
	}
	if err := json.Unmarshal(e.Data, &body); err != nil {
		return err
	}
	charge := body.Data.Object
	_, err := tx.Exec(ctx, `INSERT INTO accounts AS a (customer, balance) VALUES ($1, $2)
		ON CONFLICT (customer) DO UPDATE SET balance = a.balance + excluded.balance`, charge.Customer, charge.Amount)
	return err
}
