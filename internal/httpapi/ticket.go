package httpapi

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/eventhose/eventhose"
)

// A ticket lets a browser in, whose EventSource and WebSocket cannot send an Authorization header. It stands for the key
// that made it, which is looked up again when it is used, towards one tenant, for a minute. Nothing is stored: it is
//
//	tkt_ base64url( 1, expiry as 8 bytes of Unix seconds, length and key id, tenant, HMAC-SHA-256 of all before )
//
// so every node that has the same ticket key takes it, as often as it comes.

const (
	ticketPrefix  = "tkt_"
	ticketVersion = 1
	ticketTime    = time.Minute
	maxTicket     = 512
	maxKeyID      = 64
)

// ticketOffice makes tickets and tells them from forgeries. It is safe for concurrent use.
type ticketOffice struct{ key eventhose.Secret }

func newTicketOffice(key eventhose.Secret) (ticketOffice, error) {
	if key == "" {
		var random [32]byte
		rand.Read(random[:])
		key = eventhose.Secret(random[:])
	}
	if len(key) < 32 {
		return ticketOffice{}, &eventhose.Error{Code: eventhose.CodeInvalid, Field: "TicketKey", Message: "must be at least 32 bytes"}
	}
	return ticketOffice{key}, nil
}

func (o ticketOffice) sign(b []byte) []byte {
	mac := hmac.New(sha256.New, []byte(o.key))
	mac.Write(b)
	return mac.Sum(nil)
}

// ticket is what a ticket says.
type ticket struct {
	keyID   string
	tenant  eventhose.TenantID
	expires time.Time
}

func (o ticketOffice) write(t ticket) eventhose.Secret {
	b := []byte{ticketVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(t.expires.Unix()))
	b = append(append(b, byte(len(t.keyID))), t.keyID...)
	b = append(b, t.tenant...)
	return eventhose.Secret(ticketPrefix + base64.RawURLEncoding.EncodeToString(append(b, o.sign(b)...)))
}

// read answers what a ticket says that this office has made. Whatever is wrong with it, the answer is the same
// CodeUnauthenticated.
func (o ticketOffice) read(s eventhose.Secret, now time.Time) (ticket, error) {
	refused := &eventhose.Error{Code: eventhose.CodeUnauthenticated, Message: "the ticket is unknown or expired", Fix: "make another with POST …/tickets"}
	text, ok := strings.CutPrefix(string(s), ticketPrefix)
	// Even a strict decoder passes over line breaks.
	if !ok || len(s) > maxTicket || strings.ContainsAny(text, "\r\n") {
		return ticket{}, refused
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 1+8+1+sha256.Size {
		return ticket{}, refused
	}
	said, mac := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if !hmac.Equal(mac, o.sign(said)) || said[0] != ticketVersion {
		return ticket{}, refused
	}
	n := int(said[9])
	if len(said) < 10+n {
		return ticket{}, refused
	}
	t := ticket{keyID: string(said[10 : 10+n]), tenant: eventhose.TenantID(said[10+n:]), expires: time.Unix(int64(binary.BigEndian.Uint64(said[1:])), 0)}
	if !now.Before(t.expires) {
		return ticket{}, refused
	}
	return t, nil
}

// ticketOf answers the ticket of a request that has no Authorization header, "" if there is none. CodeUnauthenticated.
func ticketOf(r *http.Request, ru rule) (eventhose.Secret, error) {
	if !ru.tickets || len(r.Header["Authorization"]) > 0 {
		return "", nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	switch given := q["ticket"]; {
	case len(given) == 0:
		return "", nil
	case err != nil, len(given) > 1, given[0] == "":
		return "", &eventhose.Error{Code: eventhose.CodeUnauthenticated, Message: "the query holds no ticket that can be read", Fix: "give one ticket, as POST …/tickets answered it"}
	default:
		return eventhose.Secret(given[0]), nil
	}
}

// redeem answers who a ticket stands for: the holder of its key, with the ticket's tenant for all reach. CodeUnauthenticated.
func (a *API) redeem(ctx context.Context, s eventhose.Secret) (eventhose.Principal, error) {
	t, err := a.tickets.read(s, time.Now())
	if err != nil {
		return eventhose.Principal{}, err
	}
	p, err := a.control.Holder(ctx, t.keyID)
	if err != nil {
		return p, err
	}
	if !p.May(t.tenant) { // keys keep their tenant; this one would have had another when it made the ticket
		return p, eventhose.NotFound("tenant")
	}
	p.Tenant = t.tenant
	return p, nil
}

// Ticket opens streams from a browser.
type Ticket struct {
	Ticket  string    `json:"ticket" doc:"Goes into the query of a stream's address, as ticket. Whoever has it reads the tenant's log: hand it to the page that is to read, and write it down nowhere"`
	Expires time.Time `json:"expires" doc:"Until when it opens streams; those that are open live on"`
}

type ticketOutput struct{ Body Ticket }

// createTicket answers POST …/tickets.
func (a *API) createTicket(ctx context.Context, in *InTenant) (*ticketOutput, error) {
	id := exchangeOf(ctx).principal.KeyID
	if len(id) > maxKeyID {
		return nil, &eventhose.Error{Code: eventhose.CodeForbidden, Message: "this key makes no tickets"}
	}
	expires := time.Now().Add(ticketTime).UTC().Truncate(time.Second)
	made := a.tickets.write(ticket{keyID: id, tenant: in.Tenant, expires: expires})
	return &ticketOutput{Ticket{Ticket: string(made), Expires: expires}}, nil
}
