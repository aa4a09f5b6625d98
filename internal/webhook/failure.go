package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/egress"
	"github.com/eventhose/eventhose/internal/sink"
)

// failure says what a failed exchange means. ctx is the engine's.
func (t *target) failure(ctx context.Context, err error, a *egress.Answer) sink.Result {
	reason, detail := t.diagnose(ctx, err, a)
	result := failed(reason, detail)
	result.Message = t.redactor.Redact(result.Message)
	result.Slow = reason == eventhose.ReasonTimeout
	return result
}

func (t *target) diagnose(ctx context.Context, err error, a *egress.Answer) (eventhose.Reason, string) {
	var (
		dns     *net.DNSError
		timeout net.Error
		elapsed = time.Since(a.Started)
	)
	switch {
	case errors.Is(err, egress.ErrBlocked):
		return eventhose.ReasonBlocked, ""
	case ctx.Err() != nil, errors.Is(err, egress.ErrHeldBack):
		return eventhose.ReasonStopping, ""
	case elapsed >= t.timeout:
		return eventhose.ReasonTimeout, fmt.Sprintf("time-out after %s while %s", t.timeout, a.Stage)
	case errors.As(err, &dns) && dns.IsNotFound:
		return eventhose.ReasonDNS, fmt.Sprintf("the name %s does not resolve to an address", t.host)
	case errors.As(err, &dns):
		return eventhose.ReasonDNS, fmt.Sprintf("the name servers did not answer for %s", t.host)
	case errors.As(err, &timeout) && timeout.Timeout():
		return eventhose.ReasonTimeout, fmt.Sprintf("time-out after %s while %s", elapsed.Round(100*time.Millisecond), a.Stage)
	case errors.Is(err, syscall.ECONNREFUSED):
		return eventhose.ReasonRefused, "the connection was refused: nobody listens there"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return eventhose.ReasonRefused, "there is no way to the address"
	}
	if detail := t.tlsFault(err); detail != "" {
		return eventhose.ReasonTLS, detail
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed), a.Stage == egress.StageSend, a.Stage == egress.StageWait:
		return eventhose.ReasonReset, "the receiver broke the connection while " + string(a.Stage)
	case a.Stage == egress.StageConnect:
		return eventhose.ReasonRefused, sink.NoConnection + ": " + plain(system(err))
	case a.Stage == egress.StageTLS:
		return eventhose.ReasonTLS, "the TLS handshake failed: " + plain(err)
	}
	return eventhose.ReasonProtocol, "what came back cannot be read as HTTP: " + plain(err)
}

// tlsFault says what is wrong with a certificate or a handshake, "" if the error is of another kind.
func (t *target) tlsFault(err error) string {
	var (
		invalid   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     *net.OpError
	)
	const day = time.DateOnly
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(invalid.Cert.NotBefore):
		return fmt.Sprintf("the certificate of %s is not valid before %s", t.host, invalid.Cert.NotBefore.UTC().Format(day))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate of %s expired on %s", t.host, invalid.Cert.NotAfter.UTC().Format(day))
	case errors.As(err, &authority):
		return fmt.Sprintf("the certificate of %s is signed by an authority that is not trusted here, or an intermediate certificate is missing", t.host)
	case errors.As(err, &host):
		return fmt.Sprintf("the certificate is not for %s", t.host)
	case errors.As(err, &verify):
		return fmt.Sprintf("the certificate of %s cannot be verified: %s", t.host, plain(verify.Err))
	case errors.As(err, &record):
		return sink.NoTLS
	case errors.As(err, &alert) && alert.Op == "remote error": // as crypto/tls reports an alert
		return "the receiver ended the TLS handshake: " + plain(alert.Err)
	}
	return ""
}

// system answers what the system has said, if that is what an error is about.
func system(err error) error {
	var said syscall.Errno
	if errors.As(err, &said) {
		return said
	}
	return err
}

// plain answers an error's text without the names of Go packages that it begins with, bounded.
func plain(err error) string {
	text := err.Error()
	for _, prefix := range []string{"net/http: ", "http: ", "remote error: ", "tls: ", "x509: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return sink.Printable(text, 200)
}
