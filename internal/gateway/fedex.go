package gateway

// fedex is Advanced Integrated Visibility. Its page says both base64 and hex: its code writes base64, and either is taken.
func fedex() Provider {
	return signed(Provider{
		Name: "fedex", Title: "FedEx Advanced Integrated Visibility", Source: "https://developer.fedex.com/api/en-us/catalog/track/docs.html",
		Doc:    "fdx-signature: base64 (or hex) of HMAC-SHA256 over {body}, with the security token",
		naming: Naming{Type: []string{"text:tracking"}},
	}, Scheme{Header: "Fdx-Signature", Encoding: Base64, alsoEncoding: Hex})
}

func fedexSupplyChain() Provider {
	return signed(Provider{
		Name: "fedex-supply-chain", Title: "FedEx Supply Chain", Source: "https://developer.fedex.com/api/en-us/home.html",
		naming: Naming{Type: []string{"text:supply_chain"}},
	}, Scheme{Header: "X-Fdx-Sc-Signature", Encoding: Base64})
}
