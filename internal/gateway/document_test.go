package gateway

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/providers.md anew")

const documentHead = `# Webhooks of providers, and how they are verified

A *source* is the inbound door of one provider: it verifies what comes, names it, and appends it. This is every provider that can be
verified, what the provider signs, and what the source has to know. Everything is verified over the bytes as they came; a time that is
signed must be within the tolerance of ours, before and after.

Several secrets may be given: a request is taken if any of them verifies it, so that a secret can be changed without a gap.
` + "`generic`" + ` verifies what any other provider signs with an HMAC in a header, described as data.

A request without a signature of its own (those that say *No signature*) is only as safe as its secret and TLS. Mailgun signs no body, and
Adyen's payments only eight fields: the ids of their events are made of what is signed, whatever a naming says.

The certificates of PayPal and Amazon SNS are believed because they come from the provider's own address, over TLS that is verified: the files hold
no chain that could be. They have to be in the provider's name, in force, and have an RSA key of 2048 bits or more.

### How repeats are told

Providers send again what was not answered in time, and whoever has seen a request can send it too. An event whose id is in the log is
answered 200 and not appended, as long as the log remembers the id, which is as long as it keeps events. The first place that holds something
is the id:

| | |
|---|---|
| ` + "`header:NAME`, `form:NAME`, `json:PATH`" + ` | a header, a parameter of a form, a value of a JSON body; with + they count together, and only if each holds something |
| ` + "`body:sha256`" + ` | a digest of the body, where no two events have the same one |
| what is signed | a digest of all that is signed, with its time or id. The same signed request is taken once, and when its time is past the tolerance not at all; what the provider signs anew when it tries again is another event. Two events in the same bytes of which the same time is signed, to the second or millisecond, are one: nothing tells the second from a replay |
| nothing | each request is an event. Dropbox, for one, says in the same bytes that something has changed, and has changed again: were they one, the second would be lost |

Where nothing tells a repeat, an event may be there twice, and **whoever has captured a request can send it again until the secret is
changed**: the provider signs nothing by which that could be seen. The same is true of an id in a header that the provider does not sign,
which is marked: it tells the provider's own repeats, and no forged ones. Do such work [so that once more does no
harm](workers.md#do-it-once). A source's ` + "`naming`" + ` may say what tells repeats if you know it better, ` + "`body:sha256`" + ` for instance where
your events are never alike. A naming without ` + "`id`" + ` leaves it to what is signed, or to nothing.

### Providers

The source is the document of the provider that says so. Where code was looked at as well, the provider's own or other people's, it is named.

| provider | signs | needs | tolerance | a repeat is told by | source |
|---|---|---|---|---|---|
`

// document is docs/providers.md, as the providers say.
func document(t *testing.T) string {
	var b strings.Builder
	b.WriteString(documentHead)
	for _, p := range Providers() {
		var needs []string
		for _, n := range p.Needs {
			need := "`" + n.Field + "`"
			if !n.Required {
				need += " (optional)"
			}
			needs = append(needs, need+": "+n.Doc)
		}
		tolerance := "no time is signed"
		switch {
		case p.Tolerance > 0:
			tolerance = p.Tolerance.String()
		case p.timed:
			tolerance = "if given"
		}
		source := "[document](" + p.Source + ")"
		if p.Checked != "" {
			source += "; " + p.Checked
		}
		fmt.Fprintf(&b, "| `%s` %s | %s | %s | %s | %s | %s |\n", p.Name, p.Title, strings.ReplaceAll(p.Doc, "|", `\|`), strings.Join(needs, "<br>"), tolerance, repeats(t, p), source)
	}
	return b.String()
}

// repeats says what tells a repeat of a provider's.
func repeats(t *testing.T, p Provider) string {
	s, signs := senders()[p.Name]
	switch {
	case p.Repeats != "":
		return p.Repeats
	case !signs:
		return "nothing"
	}
	v, err := New(p.Name, s.settingsOf(s.keyOf(0)), s.around)
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, place := range p.naming.ID {
		told := "`" + place + "`"
		for part := range strings.SplitSeq(place, "+") {
			header, ok := strings.CutPrefix(part, "header:")
			if ok && !slices.ContainsFunc(s.signed, func(name string) bool {
				return strings.EqualFold(name, strings.Replace(header, "svix-", "webhook-", 1))
			}) {
				told += " (not signed)"
				break
			}
		}
		places = append(places, told)
		if place == "body:sha256" {
			return strings.Join(places, ", or ")
		}
	}
	if v.scheme.stamp != nil {
		return strings.Join(append(places, "what is signed"), ", or ")
	}
	return strings.Join(append(places, "nothing"), ", or ")
}

// The document says what the providers are. go test ./internal/gateway -update writes it.
func TestDocument(t *testing.T) {
	const name = "../../docs/providers.md"
	if *update {
		if err := os.WriteFile(name, []byte(document(t)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != document(t) {
		t.Error("docs/providers.md is not what the providers say: run go test ./internal/gateway -run TestDocument -update")
	}
}
