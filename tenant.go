package eventhose

import (
	"regexp"
	"time"
)

// TenantID names the owner of one log: 1 to 64 of [A-Za-z0-9_-], beginning with a letter or digit.
type TenantID string

var tenantID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// Validate answers a CodeInvalid error for field "tenant".
func (t TenantID) Validate() error {
	if !tenantID.MatchString(string(t)) {
		return Invalid("tenant", "must be 1 to 64 letters, digits, _ or -, beginning with a letter or digit")
	}
	return nil
}

// Tenant is the owner of one log.
type Tenant struct {
	ID TenantID `json:"id"`
	// Parent is the platform this tenant is connected to: each of its events gets a place in the parent's log too, under
	// the id "tenant/id". A parent has no parent itself. It is set once.
	Parent    TenantID  `json:"parent,omitempty"`
	Retention Retention `json:"retention,omitzero"`
	Created   time.Time `json:"created"`
	Updated   time.Time `json:"updated"`
}

// Retention bounds a log. Zero fields do not bound it. Whichever bound is reached first trims.
type Retention struct {
	// Age is how long an event stays after it was appended, at least a second.
	Age Duration `json:"age,omitempty" doc:"How long an event stays after it was appended, 1s to 876000h; for ever if it is left out. The newest event stays"`
	// Bytes is how much data the log keeps; the oldest goes first, the newest event never.
	Bytes int64 `json:"bytes,omitempty" doc:"How much data the log keeps, in bytes; without bound if it is left out. The newest event stays, however large"`
	// DeadBytes is the quota of data kept for parked events that the log itself no longer holds, 64 MiB if 0.
	DeadBytes int64 `json:"dead_bytes,omitempty"`
}

// Validate answers a CodeInvalid error naming the field.
func (t Tenant) Validate() error {
	if err := t.ID.Validate(); err != nil {
		return err
	}
	if t.Parent != "" {
		if t.Parent.Validate() != nil {
			return Invalid("parent", "is not a tenant id")
		}
		if t.Parent == t.ID {
			return Invalid("parent", "must be another tenant")
		}
	}
	r := t.Retention
	switch {
	case r.Age != 0 && (r.Age < Duration(time.Second) || r.Age > Duration(100*365*24*time.Hour)):
		return Invalid("retention.age", "must be between 1s and 876000h")
	case r.Bytes < 0:
		return Invalid("retention.bytes", "must not be negative")
	case r.DeadBytes < 0:
		return Invalid("retention.dead_bytes", "must not be negative")
	}
	return nil
}

// Duration is a time.Duration that is written as Go writes it ("30s", "72h").
type Duration time.Duration

func (d Duration) String() string               { return time.Duration(d).String() }
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText takes what time.ParseDuration takes.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return Invalid("", "%q is not a duration such as 30s or 72h", b)
	}
	*d = Duration(v)
	return nil
}
