// Package dashboard serves the web pages: the operator's dashboard below /ui/ and the customer's portal below /portal. They are
// one bundle, made of web/ by `make web` and embedded here. They speak only the public HTTP API, in the reader's browser: this package
// serves files and knows no data.
//
// Nothing in the pages is inline, so the policy that goes with them lets nothing run but the two scripts that are served here: what
// a hostile event, header or name puts into a page stays text.
package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/klauspost/compress/gzhttp"
)

//go:embed dist/app.js dist/app.css dist/eventhose-portal.js
var dist embed.FS

// Element is where the script of <eventhose-portal> is, for pages of other origins.
const Element = "/ui/eventhose-portal.js"

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>Eventhose</title>
<link rel="icon" href="/ui/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="%s">
<script type="module" src="%s"></script>
</head>
<body><div id="app" class="bare"><noscript><main class="signin">These pages need JavaScript. Everything they show is in the API too: <a href="/docs">/docs</a>.</main></noscript></div></body>
</html>
`

const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20" fill="none" stroke="#0b8a84" stroke-width="2" stroke-linecap="round"><path d="M2 6h9a4 4 0 0 1 0 8H6"/><circle cx="17" cy="6" r="1" fill="#0b8a84" stroke="none"/><circle cx="14.4" cy="6" r="1" fill="#0b8a84" stroke="none"/></svg>`

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors "

// Options of a Handler.
type Options struct {
	// PortalOrigins are the origins whose pages may show the portal within themselves, such as https://app.example.com. None means no page.
	PortalOrigins []string
}

// Handler serves the pages. It is safe for concurrent use.
type Handler struct {
	page     []byte
	files    map[string]file
	embedded string
	zipped   http.Handler
}

type file struct {
	contentType string
	body        []byte
	// lasting says that the name changes with the contents.
	lasting bool
	// anywhere says that pages of other origins load it.
	anywhere bool
}

// New makes a Handler. Its error names an origin that is none.
func New(o Options) (*Handler, error) {
	h := &Handler{embedded: "'none'", files: map[string]file{"icon.svg": {contentType: "image/svg+xml", body: []byte(icon)}}}
	for _, origin := range o.PortalOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.ContainsAny(u.Host, "*;, '\"") {
			return nil, fmt.Errorf("%q is not an origin such as https://app.example.com", origin)
		}
	}
	if len(o.PortalOrigins) > 0 {
		h.embedded = strings.Join(o.PortalOrigins, " ")
	}
	names := map[string]string{}
	for name, contentType := range map[string]string{"app.js": "text/javascript; charset=utf-8", "app.css": "text/css; charset=utf-8", "eventhose-portal.js": "text/javascript; charset=utf-8"} {
		body, err := dist.ReadFile("dist/" + name)
		if err != nil {
			return nil, errors.New("the pages are not in this build: run make web")
		}
		f := file{contentType: contentType, body: body, lasting: true}
		served := name
		if "/ui/"+name == Element {
			f.lasting, f.anywhere = false, true
		} else {
			sum := sha256.Sum256(body)
			ext := path.Ext(name)
			served = strings.TrimSuffix(name, ext) + "-" + hex.EncodeToString(sum[:6]) + ext
		}
		names[name] = "/ui/" + served
		h.files[served] = f
	}
	h.page = fmt.Appendf(nil, page, names["app.css"], names["app.js"])
	h.zipped = gzhttp.GzipHandler(http.HandlerFunc(h.serve))
	return h, nil
}

// Serves reports whether a path is of the pages.
func Serves(path string) bool {
	return path == "/" || path == "/ui" || strings.HasPrefix(path, "/ui/") || path == "/portal" || strings.HasPrefix(path, "/portal/")
}

// ServeHTTP answers a file, or for every other address the page, which looks at the address itself.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.zipped.ServeHTTP(w, r) }

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/" || r.URL.Path == "/ui" {
		http.Redirect(w, r, "/ui/", http.StatusFound)
		return
	}
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	if name, ok := strings.CutPrefix(r.URL.Path, "/ui/"); ok {
		if f, ok := h.files[name]; ok {
			header.Set("Content-Type", f.contentType)
			header.Set("Cross-Origin-Resource-Policy", "same-origin")
			if f.anywhere {
				header.Set("Cross-Origin-Resource-Policy", "cross-origin")
				header.Set("Access-Control-Allow-Origin", "*")
			}
			if f.lasting {
				header.Set("Cache-Control", "public, max-age=31536000, immutable")
			} else {
				header.Set("Cache-Control", "public, max-age=300")
			}
			_, _ = w.Write(f.body)
			return
		}
	}
	ancestors := "'none'"
	if strings.HasPrefix(r.URL.Path, "/portal") {
		ancestors = h.embedded
	}
	header.Set("Content-Security-Policy", policy+ancestors)
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=()")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(h.page)
}
