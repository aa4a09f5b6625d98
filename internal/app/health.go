package app

import (
	"context"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/deliver"
	"github.com/eventhose/eventhose/internal/follow"
	"github.com/eventhose/eventhose/internal/store"
)

// healthNodes is how many nodes are told of at most.
const healthNodes = 1000

// health answers how this node is but for its checks.
func (a *App) health(st *opened, engine *deliver.Engine, streams *follow.Streams, started time.Time) func(context.Context) (eventhose.Health, error) {
	retention := a.opts.MetricsRetention
	if retention == 0 {
		retention = eventhose.DefaultMetricsRetention
	}
	return func(ctx context.Context) (eventhose.Health, error) {
		held := engine.Leases()
		h := eventhose.Health{Version: a.opts.Version, Started: started, Node: engine.Node(), Store: eventhose.StoreEmbedded,
			Leases: eventhose.LeasesHealth{Held: held, Total: store.Shards}, Streams: streams.Count(), RetentionOfMetrics: eventhose.Duration(retention)}
		if st.embedded != nil {
			if free, total, ok := st.embedded.Disk(); ok {
				h.Disk = &eventhose.DiskHealth{Data: int64(st.embedded.DiskUsage()), Free: free, Total: total}
			}
			h.Nodes = []eventhose.NodeHealth{{ID: h.Node, Leases: held, Self: true}}
			return h, nil
		}
		h.Store = eventhose.StorePostgreSQL
		version, err := st.database.Version(ctx)
		if err != nil {
			return h, err
		}
		c := st.database.Connections()
		h.Database = &eventhose.DatabaseHealth{Version: version, Connections: eventhose.ConnectionsHealth{Open: c.Open, InUse: c.InUse, Max: c.Max}}
		nodes, err := st.database.Nodes(ctx, healthNodes)
		for _, n := range nodes {
			h.Nodes = append(h.Nodes, eventhose.NodeHealth{ID: n.Name, Leases: n.Leases, Until: n.Until, Self: n.Name == h.Node})
		}
		return h, err
	}
}
