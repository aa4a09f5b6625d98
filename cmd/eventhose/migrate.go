package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose/internal/app"
)

func (p *program) migrateCommand() *cobra.Command {
	var url string
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the schema of a PostgreSQL database up to date",
		Long: `Bring the schema of a PostgreSQL database up to date, and print what was done. Every node does that by itself when it starts; as a step of its own
it lets a role that may change the schema do it, and nodes run as one that may not. Steps only go forward, nodes of the version before go on
working meanwhile, and several that migrate at once wait for one another.`,
		Example: "  eventhose migrate --database-url postgres://owner@db.internal/eventhose",
		Args:    args(0, 0),
		RunE: func(c *cobra.Command, _ []string) error {
			if url == "" {
				return &usageError{what: "--database-url is missing", fix: c.CommandPath() + " --database-url postgres://owner@db.internal/eventhose"}
			}
			done, err := app.Migrate(c.Context(), url)
			if err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
			return p.print(struct {
				Applied []string `json:"applied"`
			}{append([]string{}, done...)}, func(w io.Writer) {
				for _, step := range done {
					fmt.Fprintln(w, "applied", step)
				}
				if len(done) == 0 {
					fmt.Fprintln(w, "the schema is up to date")
				}
			})
		},
	}
	c.Flags().StringVar(&url, "database-url", "", "the PostgreSQL URL")
	variable(c.Flags(), "database-url", "EVENTHOSE_DATABASE_URL")
	return c
}
