package eventhose_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/eventhose/eventhose"

// floors is which packages of this module each package may import, outside its tests: a floor imports only lower
// floors, and of those only what is named. A package that is not here fails, so that each new one gets its place by
// decision. "" is the root.
var floors = map[string][]string{
	"":     nil,
	"sign": nil,

	"client":                                {""},
	"internal/filter":                       {""},
	"internal/store":                        {""},
	"internal/sink":                         {""},
	"internal/egress":                       {""},
	"internal/access":                       {""},
	"internal/diagnose":                     {""},
	"internal/follow":                       {""},
	"internal/stall":                        nil,
	"internal/overload":                     {""},
	"internal/ingress":                      nil,
	"proto/eventhose/v1":                    nil,
	"proto/eventhose/v1/eventhosev1connect": {"proto/eventhose/v1"},

	"internal/row": {"", "internal/store"},

	"internal/embedded": {"", "internal/store", "internal/row"},
	"internal/postgres": {"", "internal/store", "internal/row"},
	"internal/webhook":  {"", "internal/sink", "sign", "internal/egress"},
	"internal/mail":     {"", "internal/sink", "internal/egress"},
	"internal/broker":   {"", "internal/sink", "internal/egress"},

	"internal/pgtest":    {""},
	"internal/storetest": {"", "internal/store"},
	"internal/sinktest":  {"", "internal/sink"},

	"internal/eventlog": {"", "internal/store", "internal/filter"},
	"internal/deliver":  {"", "internal/store", "internal/sink", "internal/filter", "internal/diagnose"},
	"internal/control":  {"", "internal/store", "internal/sink", "internal/filter"},
	"internal/rollup":   {"", "internal/store"},

	"internal/httpapi":   {"", "internal/access", "internal/follow", "internal/overload", "internal/stall"},
	"internal/gateway":   {"", "sign", "internal/egress"},
	"internal/oidc":      {"", "internal/egress"},
	"internal/inbound":   {"", "internal/access", "internal/gateway", "internal/overload"},
	"internal/inspector": {"", "internal/access", "sign", "internal/overload"},
	"internal/rpc":       {"", "internal/access", "internal/follow", "internal/overload", "proto/eventhose/v1", "proto/eventhose/v1/eventhosev1connect"},
	"internal/graphql":   {"", "internal/follow", "internal/stall"},
	"internal/imap":      {""},
	"internal/dashboard": {""},

	"internal/app": {"", "sign", "client", "internal/filter", "internal/store", "internal/sink", "internal/egress", "internal/ingress", "internal/access", "internal/follow", "internal/overload",
		"internal/embedded", "internal/postgres", "internal/webhook", "internal/mail", "internal/broker",
		"internal/eventlog", "internal/deliver", "internal/control", "internal/rollup",
		"internal/httpapi", "internal/gateway", "internal/oidc", "internal/inbound", "internal/inspector", "internal/rpc", "internal/graphql", "internal/imap", "internal/dashboard"},

	"internal/listen": {"", "client", "sign", "internal/sink", "internal/egress", "internal/webhook"},

	"eventhosetest":  {"", "internal/app", "client", "sign"},
	"internal/bench": {"", "internal/app", "client", "sign", "proto/eventhose/v1", "proto/eventhose/v1/eventhosev1connect"},
	"cmd/eventhose":  {"", "internal/app", "client", "sign", "internal/bench", "internal/listen"},

	"examples/worker": {"", "client"},
}

// bare are the packages that import the standard library and nothing else.
var bare = []string{"", "sign"}

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath string
	Standard   bool
	GoFiles    []string
	CgoFiles   []string
	Imports    []string
}

func TestFloors(t *testing.T) {
	for _, fault := range floorFaults(listPackages(t), floors, bare) {
		t.Error(fault)
	}
}

// The checker itself, on graphs with a planted fault.
func TestFloorsChecker(t *testing.T) {
	table := map[string][]string{"": nil, "internal/store": {""}, "internal/deliver": {"", "internal/store"}, "internal/eventlog": {"", "internal/store"}}
	pkg := func(path string, imports ...string) goPackage {
		return goPackage{ImportPath: strings.TrimSuffix(module+"/"+path, "/"), GoFiles: []string{"x.go"}, Imports: imports}
	}
	std := goPackage{ImportPath: "time", Standard: true, GoFiles: []string{"time.go"}}
	for _, c := range []struct {
		name  string
		graph []goPackage
		want  string
	}{
		{"good", []goPackage{std, pkg("", "time"), pkg("internal/store", module), pkg("internal/deliver", "time", module, module+"/internal/store", "example.com/library")}, ""},
		{"upward", []goPackage{pkg("internal/store", module+"/internal/deliver")}, "internal/store may not import internal/deliver"},
		{"sideways", []goPackage{pkg("internal/deliver", module+"/internal/eventlog")}, "internal/deliver may not import internal/eventlog"},
		{"root imports the module", []goPackage{pkg("", module+"/internal/store")}, "the root may not import internal/store"},
		{"root imports a library", []goPackage{pkg("", "example.com/library")}, "the root may import the standard library only, not example.com/library"},
		{"no place", []goPackage{pkg("internal/util")}, "internal/util has no floor"},
		{"only tests", []goPackage{{ImportPath: module + "/test/x"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(floorFaults(c.graph, table, []string{""}), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// floorFaults answers what in a package graph goes against the table, a sentence each.
func floorFaults(graph []goPackage, floors map[string][]string, bare []string) (faults []string) {
	standard := map[string]bool{}
	for _, p := range graph {
		standard[p.ImportPath] = p.Standard
	}
	for _, p := range graph {
		name, ours := inModule(p.ImportPath)
		if !ours || len(p.GoFiles)+len(p.CgoFiles) == 0 {
			continue
		}
		allowed, known := floors[name]
		if !known {
			faults = append(faults, fmt.Sprintf("%s has no floor: give it one in floors_test.go", name))
			continue
		}
		for _, path := range p.Imports {
			imported, ours := inModule(path)
			switch {
			case ours && !slices.Contains(allowed, imported):
				faults = append(faults, fmt.Sprintf("%s may not import %s", floorName(name), floorName(imported)))
			case !ours && !standard[path] && path != "C" && slices.Contains(bare, name):
				faults = append(faults, fmt.Sprintf("%s may import the standard library only, not %s", floorName(name), path))
			}
		}
	}
	return faults
}

func inModule(path string) (name string, ours bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

func floorName(name string) string {
	if name == "" {
		return "the root"
	}
	return name
}

func listPackages(t *testing.T) (graph []goPackage) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-json=ImportPath,Standard,GoFiles,CgoFiles,Imports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return graph
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		graph = append(graph, p)
	}
}
