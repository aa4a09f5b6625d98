package interop_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// graphqlNode is the command for graphql.mjs, with the key in its environment.
func graphqlNode(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "node", append([]string{"graphql.mjs"}, args...)...)
	cmd.Env = append(os.Environ(), "EVENTHOSE_API_KEY="+adminKey)
	return cmd
}

// The schema that graphql-js reads by introspection is the one that is written down.
func TestGraphQLSchema(t *testing.T) {
	url := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := graphqlNode(ctx, "schema", url+"/v1/tenants/default/graphql", "../../internal/graphql/schema.graphql").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("types are the same")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// curl asks, and follows as Server-Sent Events.
func TestCurlAsksGraphQL(t *testing.T) {
	s := newRestarted(t)
	s.append(3)
	curl := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", s.url + "/v1/tenants/default/graphql", "-H", "Authorization: Bearer " + adminKey, "-H", "Content-Type: application/json"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl: %v\n%s", err, out)
		}
		return string(out)
	}
	if got := curl("-d", `{"query": "{ events(types: [\"t1\"]) { events { sequence type data } hasMore } }"}`); got !=
		`{"data":{"events":{"events":[{"sequence":2,"type":"t1","data":{"text":"line\nline\r\u2028 é"}}],"hasMore":false}}}` {
		t.Errorf("curl got %s", got)
	}
	if got := curl("-d", `{"query": "{ nope }"}`, "-o", os.DevNull, "-w", "%{http_code} %{content_type}", "-H", "Accept: application/graphql-response+json"); got != "400 application/graphql-response+json" {
		t.Errorf("curl got %s", got)
	}
	if got := curl("-H", "Accept: text/event-stream", "-d", `{"query": "{ __typename }"}`); !strings.HasPrefix(got, "event: next\ndata: {\"data\":{\"__typename\":\"Query\"}}\n\nevent: complete\n") {
		t.Errorf("curl got %s", got)
	}
}
