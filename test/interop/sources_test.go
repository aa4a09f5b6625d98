package interop_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"testing"
)

// What providers' own libraries sign is taken once, as it came, and repeats are acknowledged.
func TestProvidersLibrariesSign(t *testing.T) {
	url := serve(t)
	tenant := url + "/v1/tenants/default"
	type door struct {
		ID     string `json:"id"`
		URL    string `json:"url"`
		Secret string `json:"secret"`
	}
	doors := map[string]*door{"stripe": {Secret: "whsec_9f2b7c4d1e8a6053"}, "github": {Secret: "it's a Secret to Everybody"},
		"standard": {Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}
	for provider, d := range doors {
		body, err := json.Marshal(map[string]string{"provider": provider, "secret": d.Secret})
		if err != nil {
			t.Fatal(err)
		}
		call(t, http.MethodPost, tenant+"/sources", string(body), &struct{ ID, URL *string }{&d.ID, &d.URL})
	}
	given, err := json.Marshal(doors)
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(t.Context(), "node", "sources.mjs", string(given))
	var stderr bytes.Buffer
	node.Stderr = &stderr
	out, err := node.Output()
	if err != nil {
		t.Fatalf("node: %v (test/needs installs what it needs)\n%s", err, stderr.String())
	}
	sent := map[string]string{} // by source and id
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var line struct {
			Kind, ID, Body string
			Statuses       []int
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(line.Statuses) != "[200 200 401]" {
			t.Errorf("%s %s: %v, want 200, 200 for the repeat, 401 for a changed body", line.Kind, line.ID, line.Statuses)
		}
		sent[doors[line.Kind].ID+" "+line.ID] = line.Body
	}
	if len(sent) != 9 {
		t.Fatalf("node sent %d", len(sent))
	}
	var page struct {
		Data []struct {
			ID, Source string
			Data       json.RawMessage
		}
	}
	call(t, http.MethodGet, tenant+"/events?after=0&limit=100", "", &page)
	if len(page.Data) != len(sent) {
		t.Errorf("%d events of %d", len(page.Data), len(sent))
	}
	for _, e := range page.Data {
		if want, ok := sent[e.Source+" "+e.ID]; !ok || string(e.Data) != want {
			t.Errorf("%s of %s is %s, and was sent as %s", e.ID, e.Source, e.Data, want)
		}
	}
	for kind, d := range doors {
		var rejected struct{ Data []struct{ Reason string } }
		call(t, http.MethodGet, tenant+"/sources/"+d.ID+"/rejections", "", &rejected)
		if len(rejected.Data) != 3 || rejected.Data[0].Reason != "no_match" {
			t.Errorf("%s: %+v", kind, rejected)
		}
	}
}
