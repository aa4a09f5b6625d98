package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose/internal/app"
)

func (p *program) copyCommand() *cobra.Command {
	var o app.CopyOptions
	c := &cobra.Command{
		Use:   "copy",
		Short: "Copy a data directory into an empty PostgreSQL database",
		Long: `Copy a data directory into an empty PostgreSQL database, so that servers on that (serve --database-url) go on where the server on the
directory stopped: the same events with the same numbers, so that readers' cursors stay good, the same subscriptions with what they
have delivered, parked and tried, the same keys and remembered ids. Stop the server first. The directory is not changed.

Everything is compared before the copy counts as finished, and until then no server starts on the database. Interrupt it, or have it
killed, as you like: the same command goes on where it was. A database that holds anything else is refused, and not changed.

Stored secrets are copied as they are, sealed: give the servers the same secret key.`,
		Example: `  eventhose copy --from /var/lib/eventhose --to postgres://eventhose@db.internal/eventhose
  EVENTHOSE_COPY_TO_FILE=/run/secrets/database-url eventhose copy --from /var/lib/eventhose`,
		Args: args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case o.From == "":
				return &usageError{what: "--from is missing", fix: c.CommandPath() + " --from ./eventhose-data --to postgres://user:password@host:5432/database"}
			case o.To == "":
				return &usageError{what: "--to is missing", fix: c.CommandPath() + " --from " + o.From + " --to postgres://user:password@host:5432/database"}
			}
			bar := copyBar{progress: newProgress(p)}
			o.Progress = bar.show
			done, err := app.Copy(c.Context(), o)
			bar.clear()
			if err != nil {
				if c.Context().Err() != nil {
					p.tell("the same command goes on where it was", map[string]string{"copy": "interrupted"})
				}
				return err
			}
			if done.Before {
				p.tell("this copy was finished before; nothing was done", map[string]string{"copy": "finished before"})
			}
			err = p.print(done, func(w io.Writer) {
				block(w, "logs", done.Logs, "events", done.Events, "bytes", done.Bytes, "subscriptions", done.Subscriptions, "attempts", done.Attempts,
					"records", done.Records, "took", took(time.Duration(done.Took)))
			})
			key := "give the servers the secret key that the old one was given"
			if done.SecretKeyFile != "" {
				key = "give the servers the secret key of the old one: EVENTHOSE_SECRET_KEY_FILE=" + done.SecretKeyFile
			}
			p.tell(key, map[string]string{"secret_key_file": done.SecretKeyFile})
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.From, "from", "", "the data directory")
	f.StringVar(&o.To, "to", "", "the database, as postgres://user:password@host:5432/database; a password is better in the variable, or in its file")
	return c
}

// copyBar shows on a terminal how far a copy is.
type copyBar struct {
	*progress
	// doing began then, with so many events.
	doing  string
	since  time.Time
	before int
	shown  time.Time
}

// barEvery is how often the line changes.
const barEvery = 100 * time.Millisecond

func (b *copyBar) show(g app.CopyProgress) {
	if !b.terminal {
		return
	}
	now := time.Now()
	if g.Doing != b.doing {
		b.doing, b.since, b.before, b.shown = g.Doing, now, g.Events, time.Time{}
	}
	if now.Sub(b.shown) < barEvery {
		return
	}
	b.shown = now
	b.write(copyLine(g, g.Events-b.before, now.Sub(b.since)))
}

// copyLine is the line for what was done so far, of which fresh events in so long.
func copyLine(g app.CopyProgress, fresh int, since time.Duration) string {
	const bar = 24
	filled := bar
	if g.Of > 0 {
		filled = min(bar, bar*g.Events/g.Of)
	}
	line := fmt.Sprintf("%-15s [%s%s] %d of %d events", g.Doing, strings.Repeat("=", filled), strings.Repeat(" ", bar-filled), g.Events, g.Of)
	if seconds := since.Seconds(); fresh > 0 && seconds >= 1 {
		rate := float64(fresh) / seconds
		line += fmt.Sprintf("  %.0f/s  %s left", rate, (time.Duration(float64(max(0, g.Of-g.Events))/rate) * time.Second).Round(time.Second))
	}
	return line
}
