package sink

import (
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
)

// NoTLS is the detail of a ReasonTLS that no certificate mends.
const NoTLS = "the receiver does not speak TLS on this port"

// NoConnection begins the detail of a ReasonRefused that is nothing of the receiver's.
const NoConnection = "no connection could be made"

// Explain says in plain words what went wrong with an attempt and what to do about it: the detail that the sink knows
// ("the certificate expired on 2026-11-01"), or what the reason means if it is "", and the advice that goes with the
// reason. It answers "" for ReasonNone.
func Explain(reason eventhose.Reason, detail string) string {
	words, ok := explanations[reason]
	if !ok {
		return ""
	}
	switch {
	case detail == NoTLS:
		words.fix = "Check the port in the subscription's URL, which begins with https"
	case strings.HasPrefix(detail, NoConnection):
		words.fix = "If this lasts, have the operator look at this server's firewall, network and limits"
	}
	if detail == "" {
		detail = words.what
	}
	detail = Printable(detail, 300)
	if words.fix == "" {
		return detail
	}
	return detail + ". " + words.fix
}

var explanations = map[eventhose.Reason]struct{ what, fix string }{
	eventhose.ReasonStatus:   {"the receiver did not answer with 2xx", "Look into the receiver's log for this webhook-id"},
	eventhose.ReasonRedirect: {"the receiver answered with a redirect", "Redirects are never followed: change the subscription's URL to where it leads"},
	eventhose.ReasonTimeout:  {"there was no whole answer within the time-out", "Answer 2xx first and work afterwards, or raise the subscription's time-out (at most 30s)"},
	eventhose.ReasonDNS:      {"the name does not resolve", "Check the host in the subscription's URL and its DNS records"},
	eventhose.ReasonBlocked:  {"address not allowed", "Use a URL on the public internet, or have the operator allow the network (--allow-networks)"},
	eventhose.ReasonRefused:  {"nobody listens there", "Check that the receiver runs, and the host and port in the subscription's URL"},
	eventhose.ReasonReset:    {"the connection broke before the answer was whole", "Look for a crash, a restart or a proxy's limit at the receiver"},
	eventhose.ReasonTLS:      {"the TLS handshake failed", "Give the receiver a valid certificate for its host name, with its intermediate certificates"},
	eventhose.ReasonProtocol: {"what came back is not HTTP", "Check that the URL leads to a web server, and that its headers stay below 64 KiB"},
	eventhose.ReasonConfig:   {"the subscription cannot be used as it is", "Correct the subscription"},
	eventhose.ReasonPartly:   {"the receiver took some of the batch", "Only what it did not take is sent again"},
	eventhose.ReasonStopping: {"this node stopped before the answer came", "The attempt is made again and does not count"},
}

// ExplainStatus explains an HTTP status that is not 2xx and not a redirect, with the advice that the status itself suggests.
func ExplainStatus(status int) string {
	text := fmt.Sprintf("the receiver answered %d", status)
	if name := http.StatusText(status); name != "" {
		text += " " + name
	}
	fix, ok := statusFixes[status]
	switch {
	case ok:
		return text + ". " + fix
	case status >= 500:
		return text + ". The error is in the receiver: look into its log for this webhook-id"
	}
	return Explain(eventhose.ReasonStatus, text)
}

var statusFixes = map[int]string{
	http.StatusUnauthorized:          "Check that the receiver verifies with the current signing secret and the raw body, and the credentials in the subscription's headers",
	http.StatusForbidden:             "Check that the receiver verifies with the current signing secret, and that no firewall stands before it",
	http.StatusNotFound:              "Check the path in the subscription's URL",
	http.StatusMethodNotAllowed:      "The URL must take POST: check its path",
	http.StatusGone:                  "It wants nothing more. Answered to an event that the server sends, this has the subscription disabled until you resume it",
	http.StatusRequestEntityTooLarge: "Raise the receiver's limit on the size of a body, or send smaller events",
	http.StatusUnsupportedMediaType:  "The receiver must take the content type of the subscription's format",
	http.StatusTooManyRequests:       "It is asked less at once now; raise the receiver's limit if this lasts",
	http.StatusBadGateway:            "A proxy did not reach the receiver: check that it runs",
	http.StatusServiceUnavailable:    "The receiver is overloaded or in maintenance; it is asked less at once now",
	http.StatusGatewayTimeout:        "A proxy gave up on the receiver: answer 2xx first and work afterwards",
}

// Printable answers text as valid UTF-8 of at most max bytes without control characters, for text that came from outside.
func Printable(text string, max int) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, CutUTF8(text, max))
}

// CutUTF8 answers at most max bytes of text as valid UTF-8, cut between characters; bytes that are no UTF-8 become U+FFFD.
func CutUTF8(text string, max int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= max {
		return text
	}
	for max > 0 && !utf8.RuneStart(text[max]) {
		max--
	}
	return text[:max]
}
