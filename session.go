package eventhose

import "time"

// Session is somebody who has signed in. Its token is a cookie's, and is never shown.
type Session struct {
	// ID is "ses_" and 26 characters; a later session has a greater one.
	ID string `json:"id"`
	// Subject is who has signed in: the id of an API key, or what the identity provider calls a person.
	Subject string `json:"subject"`
	// Name is the key's name.
	Name string `json:"name,omitempty"`
	// OIDC says that an identity provider vouches for the subject.
	OIDC   bool     `json:"oidc"`
	Tenant TenantID `json:"tenant,omitempty"`
	Scopes []Scope  `json:"scopes"`
	// Address is where the sign-in came from.
	Address string    `json:"address"`
	Created time.Time `json:"created"`
	// Used is when it was used last, to the minute.
	Used    time.Time `json:"used"`
	Expires time.Time `json:"expires"`
}

// How long a session lives: SessionTime at most, and SessionIdle after it was used last.
const (
	SessionTime = 12 * time.Hour
	SessionIdle = 2 * time.Hour
)
