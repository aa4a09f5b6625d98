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

// What providers' own libraries sign, in more than one language, is taken once, as it came, and repeats are acknowledged.
func TestProvidersLibrariesSign(t *testing.T) {
	url := serve(t)
	for _, c := range []struct {
		command []string
		secrets map[string]string
	}{
		{[]string{"node", "sources.mjs"}, map[string]string{"stripe": "whsec_9f2b7c4d1e8a6053", "github": "it's a Secret to Everybody", "standard": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}},
		{[]string{python, "sources.py"}, map[string]string{
			"adyen":  "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
			"stripe": "whsec_4c1d9e7f2b8a5036", "svix": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		}},
	} {
		t.Run(c.command[1], func(t *testing.T) { librariesSign(t, url+"/v1/tenants/default", c.command, c.secrets) })
	}
}

// python is that of the virtual environment with the packages of requirements.txt.
const python = "venv/bin/python"

// librariesSign has a script sign and send with the libraries that it knows: three bodies for each provider.
func librariesSign(t *testing.T, tenant string, command []string, secrets map[string]string) {
	type door struct {
		ID     string `json:"id"`
		URL    string `json:"url"`
		Secret string `json:"secret"`
	}
	doors := map[string]*door{}
	for provider, secret := range secrets {
		d := &door{Secret: secret}
		doors[provider] = d
		body, err := json.Marshal(map[string]string{"provider": provider, "secret": secret})
		if err != nil {
			t.Fatal(err)
		}
		call(t, http.MethodPost, tenant+"/sources", string(body), &struct{ ID, URL *string }{&d.ID, &d.URL})
	}
	given, err := json.Marshal(doors)
	if err != nil {
		t.Fatal(err)
	}
	script := exec.CommandContext(t.Context(), command[0], append(command[1:], string(given))...)
	var stderr bytes.Buffer
	script.Stderr = &stderr
	out, err := script.Output()
	if err != nil {
		t.Fatalf("%s: %v (test/needs installs what it needs)\n%s", command[0], err, stderr.String())
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
	if len(sent) != 3*len(doors) {
		t.Fatalf("%s sent %d", command[1], len(sent))
	}
	for kind, d := range doors {
		var page struct {
			Data []struct {
				ID, Source string
				Data       json.RawMessage
			}
		}
		call(t, http.MethodGet, tenant+"/events?after=0&limit=100", "", &page)
		events := 0
		for _, e := range page.Data {
			if e.Source != d.ID {
				continue
			}
			events++
			if want, ok := sent[e.Source+" "+e.ID]; !ok || string(e.Data) != want {
				t.Errorf("%s of %s is %s, and was sent as %s", e.ID, kind, e.Data, want)
			}
		}
		if events != 3 {
			t.Errorf("%d events of %s, want 3", events, kind)
		}
		var rejected struct{ Data []struct{ Reason string } }
		call(t, http.MethodGet, tenant+"/sources/"+d.ID+"/rejections", "", &rejected)
		if len(rejected.Data) != 3 || rejected.Data[0].Reason != "no_match" {
			t.Errorf("%s: %+v", kind, rejected)
		}
	}
}
