package gateway

import (
	"flag"
	"fmt"
	"os"
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

The source is the document of the provider that says so. Where code was looked at as well, the provider's own or other people's, it is named.

| provider | signs | needs | tolerance | source |
|---|---|---|---|---|
`

// document is docs/providers.md, as the providers say.
func document() string {
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
		fmt.Fprintf(&b, "| `%s` %s | %s | %s | %s | %s |\n", p.Name, p.Title, strings.ReplaceAll(p.Doc, "|", `\|`), strings.Join(needs, "<br>"), tolerance, source)
	}
	return b.String()
}

// The document says what the providers are. go test ./internal/gateway -update writes it.
func TestDocument(t *testing.T) {
	const name = "../../docs/providers.md"
	if *update {
		if err := os.WriteFile(name, []byte(document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != document() {
		t.Error("docs/providers.md is not what the providers say: run go test ./internal/gateway -run TestDocument -update")
	}
}
