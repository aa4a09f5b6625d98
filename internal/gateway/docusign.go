package gateway

import "strconv"

// maxDocusignKeys is how many keys an account may have.
const maxDocusignKeys = 100

// docusign writes one header for each of the account's keys, any of which is enough.
func docusign() Provider {
	s := Scheme{Header: "X-DocuSign-Signature-1", Encoding: Base64}
	for i := 2; i <= maxDocusignKeys; i++ {
		s.also = append(s.also, "X-Docusign-Signature-"+strconv.Itoa(i))
	}
	return signed(Provider{
		Name: "docusign", Title: "DocuSign Connect", Source: "https://developers.docusign.com/platform/webhooks/connect/hmac/",
		Doc: "X-DocuSign-Signature-1 to -100: base64 of HMAC-SHA256 over {body}, one for each key",
		// Every format has the time of its making, in ten-millionths of a second.
		naming: Naming{ID: []string{"body:sha256"}, Type: []string{"json:event"}, Key: []string{"json:data.envelopeId"}, Time: []string{"json:generatedDateTime"}},
	}, s)
}
