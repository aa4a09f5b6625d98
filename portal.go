package eventhose

import "time"

// Capability is something that a portal link opens to whoever has it. The set is closed.
type Capability string

const (
	// CapabilityView: subscriptions, where their delivery stands, attempts and events, without data and bodies. Every
	// link has it.
	CapabilityView Capability = "view"
	// CapabilityData: the data of events, the bodies of answers, and streams.
	CapabilityData Capability = "data"
	// CapabilityManage: create, change, pause, resume and delete subscriptions.
	CapabilityManage Capability = "manage"
	// CapabilitySecrets: read and rotate signing secrets.
	CapabilitySecrets Capability = "secrets"
	// CapabilityReplay: replay, redrive and discard.
	CapabilityReplay Capability = "replay"
	// CapabilityTest: send a test event.
	CapabilityTest Capability = "test"
)

// Capabilities lists every capability.
func Capabilities() []Capability {
	return []Capability{CapabilityView, CapabilityData, CapabilityManage, CapabilitySecrets, CapabilityReplay, CapabilityTest}
}

// PortalLink lets whoever has its token see, and perhaps work on, one tenant's deliveries for a while. The token is shown
// once, when the link is made.
type PortalLink struct {
	// ID is "ptl_" and 26 characters; a later link has a greater one.
	ID     string   `json:"id"`
	Tenant TenantID `json:"tenant"`
	// Name is for people, at most MaxKeyName bytes.
	Name         string       `json:"name,omitempty"`
	Capabilities []Capability `json:"capabilities"`
	// Subscriptions, if there are any, are the only ones that it shows, at most MaxLinkSubscriptions.
	Subscriptions []SubscriptionID `json:"subscriptions,omitempty"`
	Created       time.Time        `json:"created"`
	Expires       time.Time        `json:"expires"`
}

// Limits of portal links.
const (
	DefaultLinkTime      = time.Hour
	MinLinkTime          = time.Minute
	MaxLinkTime          = 720 * time.Hour
	MaxLinkSubscriptions = 100
	MaxPortalLinks       = 10_000 // of one tenant, at once
)
