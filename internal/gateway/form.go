package gateway

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
)

// Limits of a form, beside that of the body.
const (
	maxParameters = 1000
	maxParts      = 200
)

// form is the parameters of a request's body.
type form struct{ values url.Values }

func (f form) get(name string) string { return f.values.Get(name) }

const formType = "application/x-www-form-urlencoded"

// isForm reports whether readForm reads the request.
func isForm(r *Request) bool {
	_, rejection := readForm(r)
	return rejection == nil
}

// readForm reads a body that is a form, URL-encoded or multipart, or the query of a GET; files in it are passed over.
func readForm(r *Request) (form, *Rejection) {
	if r.Method == http.MethodGet {
		return parseForm(r.Query)
	}
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && media == formType:
		return parseForm(string(r.Body))
	case err == nil && media == "multipart/form-data" && params["boundary"] != "":
		return parseMultipart(r.Body, params["boundary"])
	}
	return form{}, reject(ReasonBody, "the body is not a form: Content-Type is %s", quoted(r.Header.Get("Content-Type")))
}

// formOf reads a form whose bytes are signed: by them, and not by its Content-Type, which anybody can change who sends it again.
// What is no form has no parameters.
func formOf(r *Request) (f form) {
	line, _, _ := bytes.Cut(r.Body, []byte("\r\n"))
	switch boundary, multi := strings.CutPrefix(string(line), "--"); {
	case r.Method == http.MethodGet:
		f, _ = parseForm(r.Query)
	case multi && boundary != "":
		f, _ = parseMultipart(r.Body, boundary)
	default:
		f, _ = parseForm(string(r.Body))
	}
	return f
}

func parseForm(text string) (form, *Rejection) {
	if n := strings.Count(text, "&") + 1; n > maxParameters {
		return form{}, reject(ReasonBody, "there are %d parameters, and at most %d are read", n, maxParameters)
	}
	values, err := url.ParseQuery(text)
	if err != nil {
		return form{}, reject(ReasonBody, "the parameters are not URL-encoded")
	}
	return form{values}, nil
}

func parseMultipart(body []byte, boundary string) (form, *Rejection) {
	values := url.Values{}
	parts := multipart.NewReader(bytes.NewReader(body), boundary)
	for n := 0; ; n++ {
		part, err := parts.NextRawPart()
		if err == io.EOF { //nolint:errorlint // a body that breaks off wraps it
			return form{values}, nil
		}
		if err != nil || n == maxParts {
			return form{}, reject(ReasonBody, "the body is not multipart, or has more than %d parts", maxParts)
		}
		if part.FileName() != "" || part.FormName() == "" {
			continue
		}
		value, err := io.ReadAll(part)
		if err != nil {
			return form{}, reject(ReasonBody, "the body is not multipart")
		}
		values.Add(part.FormName(), string(value))
	}
}

// queried answers a parameter of the query that is reflected or compared: there once, and of few characters, so that it
// is harmless where it is shown.
func queried(r *Request, name string) (string, *Rejection) {
	f, rejection := parseForm(r.Query)
	if rejection != nil {
		return "", rejection
	}
	values := f.values[name]
	switch {
	case len(values) == 0:
		return "", reject(ReasonMethod, "a %s without the parameter %s is no handshake", quoted(r.Method), name)
	case len(values) > 1 || !challengeText(values[0]):
		return "", reject(ReasonBody, "the parameter %s must be there once, with 1 to 256 letters, digits and _ . - = + /", name)
	}
	return values[0], nil
}

// challengeText reports whether s may be reflected to whoever sent it.
func challengeText(s string) bool {
	return s != "" && len(s) <= 256 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-=+/") == ""
}
