package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/access"
)

// Sessions is what the API needs of those who have signed in.
type Sessions interface {
	// SignIn begins a session of who holds a key, and answers the cookie's token. CodeUnauthenticated.
	SignIn(ctx context.Context, key eventhose.Secret, address string) (eventhose.Session, eventhose.Secret, error)
	// SignInAs begins a session of an operator whom an identity provider vouches for, and whom a rule lets in.
	SignInAs(ctx context.Context, subject, rule, address string) (eventhose.Session, eventhose.Secret, error)
	// Session answers who has signed in with a token. CodeUnauthenticated.
	Session(ctx context.Context, token eventhose.Secret) (eventhose.Principal, error)
	// Sessions lists by id those after one.
	Sessions(ctx context.Context, after string, limit int) ([]eventhose.Session, error)
	// EndSession: CodeNotFound.
	EndSession(ctx context.Context, id string) error
}

// OIDC is what the API needs of an identity provider.
type OIDC interface {
	// Name is what people are shown.
	Name() string
	// Begin answers where a browser is to go, and what it is to keep until it comes back to callback; back is where it wants to
	// be then. CodeUnavailable.
	Begin(ctx context.Context, callback, back string) (address string, kept eventhose.Secret, err error)
	// Finish judges what a browser has come back with, once: who it is, the rule that lets him in, and where he wants to be.
	// CodeUnauthenticated, CodeForbidden (nobody lets him in), CodeUnavailable.
	Finish(ctx context.Context, kept eventhose.Secret, query url.Values) (subject, rule, back string, err error)
}

// oidcTime is how long a browser has to come back from the identity provider; those of Begin last as long.
const oidcTime = 10 * time.Minute

// maxReturn bounds where a browser wants to be after it has signed in, in bytes.
const maxReturn = 2048

// NewSession is the body of POST /v1/sessions.
type NewSession struct {
	Key eventhose.Secret `json:"key" doc:"An API key: the session may do what it may, until the key ends"`
}

// SignedIn is the answer of POST /v1/sessions.
type SignedIn struct {
	Expires time.Time          `json:"expires" doc:"When it ends unless it is used; 12 h after its beginning at the latest"`
	Subject string             `json:"subject" doc:"The key's name, or its id"`
	Tenant  eventhose.TenantID `json:"tenant,omitempty" doc:"The only tenant that it may touch; all if left out"`
	Scopes  []eventhose.Scope  `json:"scopes"`
}

// Me is who a request comes from.
type Me struct {
	Kind          eventhose.PrincipalKind    `json:"kind" enum:"session,key,portal"`
	Subject       string                     `json:"subject" doc:"What people call it: a name, an e-mail address, or an id"`
	Tenant        eventhose.TenantID         `json:"tenant,omitempty" doc:"The only tenant that it may touch; all if left out"`
	Scopes        []eventhose.Scope          `json:"scopes" doc:"None for a portal link"`
	Capabilities  []eventhose.Capability     `json:"capabilities,omitempty" doc:"Of a portal link"`
	Subscriptions []eventhose.SubscriptionID `json:"subscriptions,omitempty" doc:"The only ones that a portal link shows, if it is limited"`
	Expires       time.Time                  `json:"expires,omitzero" doc:"Never if left out"`
	OIDC          bool                       `json:"oidc" doc:"An identity provider vouches for it"`
}

// SignInMethods are the ways to sign in.
type SignInMethods struct {
	Key  bool        `json:"key" doc:"With an API key"`
	OIDC *OIDCMethod `json:"oidc" doc:"With an identity provider; null if there is none"`
}

// OIDCMethod is an identity provider.
type OIDCMethod struct {
	Name string `json:"name"`
}

// Schema describes an OIDCMethod, or null.
func (OIDCMethod) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, Nullable: true, Description: "An identity provider", Required: []string{"name"},
		Properties: map[string]*huma.Schema{"name": {Type: huma.TypeString, Description: "What people are shown: its host"}}}
}

type (
	newSessionInput struct{ Body NewSession }
	signedInOutput  struct {
		SetCookie http.Cookie `header:"Set-Cookie"`
		Body      SignedIn
	}
	meOutput      struct{ Body Me }
	methodsOutput struct{ Body SignInMethods }
	sessionInput  struct {
		ID string `path:"id" doc:"The session" example:"ses_01j9z3k4m5n6p7q8r9s0t1v2w3"`
	}
)

func (a *API) addSessions(oidc OIDC) {
	tags := []string{"sessions"}
	manage(a, rule{maxBody: 4 << 10, cookies: true}, huma.Operation{
		OperationID: "createSession", Method: http.MethodPost, Path: "/v1/sessions", Tags: tags,
		Summary: "Sign in with an API key: a cookie then does in its place", DefaultStatus: http.StatusCreated,
		Description: "For browsers, whose pages can then forget the key. The cookie is `HttpOnly` and `SameSite=Strict`. " +
			"A session ends two hours after it was used last, twelve hours after it was begun, and with its key.",
		Responses: map[string]*huma.Response{"401": a.problemResponse(http.StatusUnauthorized), "403": a.problemResponse(http.StatusForbidden), "429": a.problemResponse(http.StatusTooManyRequests)},
	}, a.createSession)
	manage(a, rule{known: true}, huma.Operation{
		OperationID: "currentSession", Method: http.MethodGet, Path: "/v1/sessions/current", Tags: tags,
		Summary: "Who the request comes from, and what its credential opens",
	}, func(ctx context.Context, _ *struct{}) (*meOutput, error) {
		p := exchangeOf(ctx).principal
		return &meOutput{Me{Kind: p.Kind, Subject: nameOf(p), Tenant: p.Tenant, Scopes: notNil(p.Scopes), Capabilities: p.Capabilities,
			Subscriptions: p.Subscriptions, Expires: p.Expires, OIDC: p.OIDC}}, nil
	})
	a.direct(rule{cookies: true}, huma.Operation{
		OperationID: "endCurrentSession", Method: http.MethodDelete, Path: "/v1/sessions/current", Tags: tags,
		Summary:   "Sign out: the session of the cookie ends, if there is one, and the cookie is taken away",
		Responses: map[string]*huma.Response{"204": {Description: "Signed out"}, "403": a.problemResponse(http.StatusForbidden)},
	}, a.signOut)
	manage(a, rule{}, huma.Operation{
		OperationID: "signInMethods", Method: http.MethodGet, Path: "/v1/sessions/methods", Tags: tags, Summary: "The ways to sign in",
	}, func(context.Context, *struct{}) (*methodsOutput, error) {
		out := &methodsOutput{SignInMethods{Key: true}}
		if oidc != nil {
			out.Body.OIDC = &OIDCMethod{oidc.Name()}
		}
		return out, nil
	})
	manage(a, rule{scope: eventhose.ScopeAdmin, platform: true}, huma.Operation{
		OperationID: "listSessions", Method: http.MethodGet, Path: "/v1/sessions", Tags: tags, Summary: "Who has signed in, by the session's id",
	}, func(ctx context.Context, in *PageInput) (*listOutput[eventhose.Session], error) {
		list, err := a.control.Sessions(ctx, in.After, in.Limit+1)
		if err != nil {
			return nil, err
		}
		return listed(list, in.Limit, func(s eventhose.Session) string { return s.ID }), nil
	})
	manage(a, rule{scope: eventhose.ScopeAdmin, platform: true}, huma.Operation{
		OperationID: "endSession", Method: http.MethodDelete, Path: "/v1/sessions/{id}", Tags: tags,
		Summary: "End somebody's session", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *sessionInput) (*nothing, error) {
		return &nothing{}, a.control.EndSession(ctx, in.ID)
	})
	if oidc == nil {
		return
	}
	text := huma.Schema{Type: huma.TypeString}
	a.open(huma.Operation{OperationID: "beginSignIn", Path: "/v1/sessions/oidc", Tags: tags,
		Summary:    "Sign in with the identity provider: the browser is sent there",
		Parameters: []*huma.Param{queryParameter("return", "Where to go afterwards: a path of this server", huma.Schema{Type: huma.TypeString, Default: "/"})},
		Responses:  map[string]*huma.Response{"303": {Description: "To the identity provider"}, "429": a.problemResponse(http.StatusTooManyRequests)},
	}, func(w http.ResponseWriter, r *http.Request) { a.beginSignIn(w, r, oidc) })
	a.direct(rule{anyQuery: true}, huma.Operation{OperationID: "finishSignIn", Method: http.MethodGet, Path: "/v1/sessions/oidc/callback", Tags: tags,
		Summary: "Where the identity provider sends the browser back to",
		Parameters: []*huma.Param{queryParameter("state", "As the provider was given it", text), queryParameter("code", "The provider's code", text),
			queryParameter("error", "Why the provider refuses", text)},
		Responses: map[string]*huma.Response{"303": {Description: "Signed in, with a cookie"}, "401": a.problemResponse(http.StatusUnauthorized),
			"403": a.problemResponse(http.StatusForbidden), "429": a.problemResponse(http.StatusTooManyRequests)},
	}, func(w http.ResponseWriter, r *http.Request) { a.finishSignIn(w, r, oidc) })
}

// nameOf is what people call who has a credential.
func nameOf(p eventhose.Principal) string {
	if p.Name != "" {
		return p.Name
	}
	return p.KeyID
}

func (a *API) createSession(ctx context.Context, in *newSessionInput) (*signedInOutput, error) {
	x := exchangeOf(ctx)
	if err := a.visitors.try(x.address); err != nil {
		return nil, err
	}
	s, token, err := a.control.SignIn(ctx, in.Body.Key, x.address)
	if err != nil {
		return nil, err
	}
	p, err := a.signedIn(ctx, x, s, token)
	if err != nil {
		return nil, err
	}
	return &signedInOutput{*cookie(access.SessionCookie, token, eventhose.SessionTime, x.secure, http.SameSiteStrictMode),
		SignedIn{Expires: p.Expires, Subject: nameOf(p), Tenant: p.Tenant, Scopes: notNil(p.Scopes)}}, nil
}

// signedIn notes that somebody has begun a session, and answers who.
func (a *API) signedIn(ctx context.Context, x *exchange, s eventhose.Session, token eventhose.Secret) (eventhose.Principal, error) {
	p, err := a.control.Session(ctx, token)
	if err != nil {
		return p, err
	}
	x.principal, x.target = p, s.ID
	a.audit(ctx, x, "createSession", s.Tenant)
	return p, nil
}

func (a *API) signOut(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	p, err := a.control.Session(r.Context(), sessionToken(r, x.secure))
	if err == nil {
		err = a.control.EndSession(r.Context(), p.KeyID)
	}
	switch eventhose.CodeOf(err) {
	case "":
		x.principal, x.target = p, p.KeyID
		a.audit(r.Context(), x, "endCurrentSession", p.Tenant)
	case eventhose.CodeUnauthenticated, eventhose.CodeNotFound: // it is over already
	default:
		a.fail(w, r, err)
		return
	}
	http.SetCookie(w, cookie(access.SessionCookie, "", 0, x.secure, http.SameSiteStrictMode))
	w.WriteHeader(http.StatusNoContent)
}

// beginSignIn answers GET /v1/sessions/oidc. Other sites may send a browser here: it does nothing but ask it to sign in.
func (a *API) beginSignIn(w http.ResponseWriter, r *http.Request, oidc OIDC) {
	x := exchangeOf(r.Context())
	back, err := returnPath(x.query.Get("return"))
	if err == nil {
		err = a.visitors.try(x.address)
	}
	var address string
	var kept eventhose.Secret
	if err == nil {
		address, kept, err = oidc.Begin(r.Context(), a.base(x)+"/v1/sessions/oidc/callback", back)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	// Lax, since the browser comes back from another site.
	http.SetCookie(w, cookie(access.OIDCCookie, kept, oidcTime, x.secure, http.SameSiteLaxMode))
	w.Header().Set("Location", address)
	w.WriteHeader(http.StatusSeeOther)
}

func (a *API) finishSignIn(w http.ResponseWriter, r *http.Request, oidc OIDC) {
	x := exchangeOf(r.Context())
	err := a.visitors.try(x.address)
	var kept eventhose.Secret
	if c, none := r.Cookie(cookieName(access.OIDCCookie, x.secure)); none == nil {
		kept = eventhose.Secret(c.Value)
	}
	// It is good for one try, however that ends.
	http.SetCookie(w, cookie(access.OIDCCookie, "", 0, x.secure, http.SameSiteLaxMode))
	var subject, by, back string
	if err == nil {
		subject, by, back, err = oidc.Finish(r.Context(), kept, x.query)
	}
	var s eventhose.Session
	var token eventhose.Secret
	if err == nil {
		s, token, err = a.control.SignInAs(r.Context(), subject, by, x.address)
	}
	if err == nil {
		_, err = a.signedIn(r.Context(), x, s, token)
	}
	if err != nil {
		if code := eventhose.CodeOf(err); code != eventhose.CodeInternal && code != eventhose.CodeLimit { // who set the provider up needs the cause, which nobody is shown
			a.logger.LogAttrs(r.Context(), slog.LevelWarn, "http: a sign-in with the identity provider has failed", slog.String("request_id", x.id), slog.String("error", err.Error()))
		}
		a.fail(w, r, err)
		return
	}
	http.SetCookie(w, cookie(access.SessionCookie, token, eventhose.SessionTime, x.secure, http.SameSiteStrictMode))
	w.Header().Set("Location", back)
	w.WriteHeader(http.StatusSeeOther)
}

// returnPath checks where a browser wants to be: a path of this origin, however browsers may read it. CodeInvalid.
func returnPath(path string) (string, error) {
	if path == "" {
		return "/", nil
	}
	u, err := url.Parse(path)
	if err != nil || len(path) > maxReturn || u.IsAbs() || u.Host != "" || u.Opaque != "" || path[0] != '/' || strings.HasPrefix(path, "//") ||
		strings.IndexFunc(path, func(c rune) bool { return c <= ' ' || c > '~' || c == '\\' }) >= 0 {
		return "", eventhose.Invalid("return", "must be a path of this server, such as /ui/")
	}
	return path, nil
}
