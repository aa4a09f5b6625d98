package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/app"
)

const (
	// databaseTime bounds looking at the database, badSkew how far its clock may be from this machine's, fewConnections
	// what two nodes need.
	databaseTime   = 10 * time.Second
	badSkew        = time.Second
	fewConnections = 40
)

// checkDatabase looks at the database of many nodes.
func checkDatabase(ctx context.Context, url string) []finding {
	ctx, cancel := context.WithTimeout(ctx, databaseTime)
	defer cancel()
	d, err := app.InspectDatabase(ctx, url)
	if err != nil {
		fix := "check the URL, and whether the database runs and lets this machine in"
		var coded *eventhose.Error
		if errors.As(err, &coded) && coded.Fix != "" {
			fix = coded.Fix
		}
		return []finding{{"database", levelFail, err.Error(), fix}}
	}
	found := []finding{{"database", levelOK, "PostgreSQL " + d.Server, ""}}
	schema := finding{"schema", levelOK, "up to date", ""}
	switch {
	case d.Schema == 0:
		schema.Detail = "none yet; the first node makes it, or eventhose migrate"
	case d.Schema < d.Known:
		schema.Detail = fmt.Sprintf("version %d of %d; the first node of this version brings it up to date, or eventhose migrate", d.Schema, d.Known)
	case d.Schema > d.Known:
		schema = finding{"schema", levelFail, fmt.Sprintf("version %d, and this binary knows %d", d.Schema, d.Known), "use the newer binary"}
	}
	found = append(found, schema)
	standby := finding{"standby", levelOK, fmt.Sprintf("%d that commits wait for", d.Standbys), ""}
	if d.Standbys == 0 {
		standby = finding{"standby", levelWarn, "no synchronous one: what the primary's disk loses is lost", "docs/postgresql.md, Durability and failover"}
	}
	found = append(found, standby)
	connections := finding{"connections", levelOK, fmt.Sprintf("at most %d", d.MaxConnections), ""}
	if d.MaxConnections < fewConnections {
		connections.Level, connections.Fix = levelWarn, "a node takes 17: raise max_connections, or lower pool_max_conns in the URL"
	}
	found = append(found, connections)
	if d.Skew.Abs() > badSkew {
		found = append(found, finding{"database clock", levelWarn, fmt.Sprintf("%v from this machine's", d.Skew.Round(time.Millisecond)), "run an NTP client on both"})
	}
	return found
}
