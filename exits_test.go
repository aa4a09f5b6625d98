package eventhose_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// waysOut is what opens, or can be told to open, an outgoing connection, by import path and name.
var waysOut = map[string][]string{
	"net": {"Dial", "DialTimeout", "DialIP", "DialTCP", "DialUDP", "DialUnix", "Dialer", "Resolver", "DefaultResolver",
		"LookupAddr", "LookupCNAME", "LookupHost", "LookupIP", "LookupMX", "LookupNS", "LookupSRV", "LookupTXT"},
	"net/http":   {"Get", "Head", "Post", "PostForm", "Client", "DefaultClient", "Transport", "DefaultTransport"},
	"net/rpc":    {"Dial", "DialHTTP", "DialHTTPPath"},
	"net/smtp":   {"Dial", "SendMail"},
	"crypto/tls": {"Dial", "DialWithDialer", "Dialer"},
	"syscall":    {"Connect"},
}

// mayLeave is which packages may use which of them: egress is the guarded way to addresses that tenants choose, and owns its
// connections, so that nothing of net/http's opens one; client goes only to the server that its user names, bench to what it starts and to that server,
// eventhosetest to what it starts and to this machine. oidc gives its libraries a Client whose transport is egress's. An entry is an import path,
// or one name of it.
var mayLeave = map[string][]string{"internal/egress": {"net"}, "client": {"net/http"}, "internal/bench": {"net", "net/http"},
	"eventhosetest": {"net", "net/http"}, "internal/oidc": {"net/http.Client"}}

func TestWaysOut(t *testing.T) {
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		faults, err := findWaysOut(name, src, mayLeave[path.Dir(name)]...)
		for _, fault := range faults {
			t.Error(fault)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The checker itself, on files with a planted fault.
func TestWaysOutChecker(t *testing.T) {
	for _, c := range []struct {
		src  string
		want int
		may  []string
	}{
		{src: `import "net"; var d net.Dialer`, want: 1},
		{src: `import "net"; var d net.Dialer`, may: []string{"net"}},
		{src: `import ("net"; "net/http"); var d net.Dialer; var t http.Transport`, want: 1, may: []string{"net"}},
		{src: `import other "net/http"; var c = &other.Client{Transport: other.DefaultTransport}`, want: 2},
		{src: `import "net/http"; func f() { http.Get("http://127.0.0.1") }`, want: 1},
		{src: `import "net/http"; func f(w http.ResponseWriter) { http.Error(w, "", 500) }`, want: 0},
		{src: `import "net"; func f() { net.Listen("tcp", "127.0.0.1:0") }`, want: 0},
		{src: `import "net/http"; var c http.Client; var t http.Transport`, want: 1, may: []string{"net/http.Client"}},
		{src: `import . "net"`, want: 1},
	} {
		faults, err := findWaysOut("x.go", []byte("package x; "+c.src), c.may...)
		if err != nil || len(faults) != c.want {
			t.Errorf("%s: %v, %v; want %d", c.src, faults, err, c.want)
		}
	}
}

// findWaysOut answers each use of a way out in a file, a sentence each, but those of the packages that it may use.
func findWaysOut(name string, src []byte, may ...string) (faults []string, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	imports := map[string]string{} // by the name it has in this file
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		if slices.Contains(may, imported) {
			continue
		}
		local := path.Base(imported)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == "." && waysOut[imported] != nil {
			faults = append(faults, fmt.Sprintf("%s imports %s without a name, which hides what it uses", name, imported))
		}
		imports[local] = imported
	}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := sel.X.(*ast.Ident); ok && slices.Contains(waysOut[imports[pkg.Name]], sel.Sel.Name) && !slices.Contains(may, imports[pkg.Name]+"."+sel.Sel.Name) {
			faults = append(faults, fmt.Sprintf("%s: %s.%s passes by the guarded dialer of internal/egress", fset.Position(sel.Pos()), imports[pkg.Name], sel.Sel.Name))
		}
		return true
	})
	return faults, nil
}
