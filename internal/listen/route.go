package listen

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/sign"
)

// Validate checks what can be checked without a server. Errors are CodeInvalid with the field: "group", "types[0]", "filter",
// "forward_to", "ordering", "secret".
func (r *Route) Validate() error {
	s := eventhose.Subscription{Name: r.name(), Filter: r.Filter, Ordering: r.Ordering}.WithDefaults()
	var refused *eventhose.Error
	switch err := s.Validate(); {
	case r.Group == "" || len(r.Group) > MaxGroup || !utf8.ValidString(r.Group):
		return eventhose.Invalid("group", "must be 1 to %d bytes of printable UTF-8", MaxGroup)
	case errors.As(err, &refused):
		moved := *refused
		moved.Field = strings.TrimPrefix(moved.Field, "filter.")
		switch moved.Field {
		case "name":
			moved.Field = "group"
		case "expression":
			moved.Field = "filter"
		}
		return &moved
	case r.ForwardTo == "":
		return &eventhose.Error{Code: eventhose.CodeInvalid, Field: "forward_to", Message: "is required", Fix: "name a URL such as http://localhost:3000/webhooks"}
	}
	if r.Secret != "" {
		if _, err := sign.ParseSecret(string(r.Secret)); err != nil {
			return eventhose.Invalid("secret", "%s", strings.TrimPrefix(err.Error(), "sign: "))
		}
	}
	return nil
}

// below puts a field's name below another.
func below(prefix string, err error) error {
	var e *eventhose.Error
	if !errors.As(err, &e) {
		return err
	}
	moved := *e
	moved.Field = prefix + e.Field
	return &moved
}

// quoted is what yaml says of a value that it could not read: it may be a secret.
var quoted = regexp.MustCompile("`[^`]*`")

// problemOf says what is wrong with a file, without what stands in it.
func problemOf(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.ReplaceAll(strings.TrimPrefix(text, "unmarshal errors:\n  "), "\n  ", "; ")
	return "cannot be read: " + quoted.ReplaceAllString(text, "a value")
}
