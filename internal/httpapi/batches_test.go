package httpapi_test

import (
	"testing"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/httpapi"
)

// A batch is listed where it began: with its first attempt, or with the first one of the newest replay that sent it once more,
// whatever has become of the others.
func TestBeginningOfABatch(t *testing.T) {
	at := func(id, replay string) eventhose.Attempt { return eventhose.Attempt{ID: id, Replay: replay} }
	for want, tries := range map[string][]eventhose.Attempt{
		"":  nil,
		"1": {at("3", ""), at("2", ""), at("1", "")},
		"2": {at("3", "a"), at("2", "a"), at("1", "")},
		"4": {at("5", ""), at("4", "b"), at("3", "a"), at("2", "a"), at("1", "")},
	} {
		if got := httpapi.Beginning(tries); got.ID != want {
			t.Errorf("%+v began with %q, want %q", tries, got.ID, want)
		}
	}
}
