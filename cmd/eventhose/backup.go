package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
	"github.com/eventhose/eventhose/internal/app"
)

func (p *program) backupCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "backup DIR",
		Short: "Have the running server write a backup of its store",
		Long: `Have the running server write a backup of its store into a new directory on its own machine, below the directory that it was
given with --backup-dir. It goes on working meanwhile. The key that encrypts stored secrets is not in the backup: keep it
elsewhere.`,
		Example: "  eventhose backup 2026-11-22",
		Args:    args(1, 1),
	}
	return p.connected(c, func(ctx context.Context, cl *client.Client, args []string) error {
		path, err := cl.Backup(ctx, args[0])
		if err != nil {
			return err
		}
		return p.print(struct {
			Path string `json:"path"`
		}{path}, func(w io.Writer) { fmt.Fprintln(w, path) })
	})
}

func (p *program) restoreCommand() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Make a data directory of a backup",
		Long: `Make a new data directory of a backup. The server must not run on it yet. The logs begin a new incarnation, so that a reader
whose cursor is from after the backup is told, and not left to miss what gets the same numbers. Put the key file of the old
data directory beside it, or give --secret-key to serve: a backup never holds it.`,
		Example: "  eventhose restore backups/2026-11-22 --data ./eventhose-data",
		Args:    args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if data == "" {
				return &usageError{what: "--data is missing", fix: c.CommandPath() + " " + args[0] + " --data ./eventhose-data"}
			}
			if _, err := os.Stat(args[0]); err != nil {
				return &usageError{what: args[0] + ": " + err.Error(), fix: "name a directory that eventhose backup has made"}
			}
			err := app.Restore(args[0], data)
			switch {
			case errors.Is(err, fs.ErrExist):
				return &failure{exit: exitConflict, code: string(eventhose.CodeConflict), what: err.Error(), fix: "name a directory that holds none with --data", err: err}
			case err != nil:
				return err
			}
			return p.print(struct {
				Data string `json:"data"`
			}{data}, func(w io.Writer) { fmt.Fprintln(w, data) })
		},
	}
	c.Flags().StringVar(&data, "data", "", "the data directory to make")
	variable(c.Flags(), "data", "EVENTHOSE_DATA")
	return c
}
