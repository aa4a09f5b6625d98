package eventhose

import "time"

// Health is how a node is, and what it works with.
type Health struct {
	Version string    `json:"version"`
	Started time.Time `json:"started"`
	// Node is what this one is called among the nodes of one store.
	Node string `json:"node"`
	// Store is StoreEmbedded or StorePostgreSQL.
	Store string `json:"store"`
	// Checks are those of /readyz: "ok", or what is wrong.
	Checks map[string]string `json:"checks"`
	// Disk is the embedded store's, nil where it cannot be told.
	Disk     *DiskHealth     `json:"disk,omitempty"`
	Database *DatabaseHealth `json:"database,omitempty"`
	// Nodes are those that are alive, at most 1,000.
	Nodes  []NodeHealth `json:"nodes"`
	Leases LeasesHealth `json:"leases"`
	// Streams is how many are open at this node.
	Streams            int      `json:"streams"`
	RetentionOfMetrics Duration `json:"retention_of_metrics"`
}

// The stores that Health names.
const (
	StoreEmbedded   = "embedded"
	StorePostgreSQL = "postgresql"
)

// DiskHealth is in bytes: what the store's files take, and what the disk that they are on has free and in all.
type DiskHealth struct {
	Data  int64 `json:"data"`
	Free  int64 `json:"free"`
	Total int64 `json:"total"`
}

// DatabaseHealth is what a node has of its database.
type DatabaseHealth struct {
	// Version is PostgreSQL's, as text.
	Version     string            `json:"version"`
	Connections ConnectionsHealth `json:"connections"`
}

// ConnectionsHealth counts a node's connections to its database.
type ConnectionsHealth struct {
	Open  int `json:"open"`
	InUse int `json:"in_use"`
	Max   int `json:"max"`
}

// NodeHealth is one of the nodes of a store.
type NodeHealth struct {
	ID string `json:"id"`
	// Leases is how many shards of tenants it delivers for.
	Leases int `json:"leases"`
	// Until is when it counts as gone if nothing more is heard of it; zero where there is one node only.
	Until time.Time `json:"until,omitzero"`
	// Self says that it is the node that tells this.
	Self bool `json:"self"`
}

// LeasesHealth counts the shards of tenants: those that this node delivers for, of all.
type LeasesHealth struct {
	Held  int `json:"held"`
	Total int `json:"total"`
}
