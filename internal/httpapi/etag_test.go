package httpapi_test

import (
	"strings"
	"testing"
)

// A page that the client has is not sent again; one that has grown, or of which something was erased, is.
func TestETag(t *testing.T) {
	w := newWorld(t, nil)
	id := w.append("acme", `{"type":"a","data":"`+strings.Repeat("x", 3000)+`"}`)
	w.append("acme", `{"type":"b","data":1}`)
	first := w.want(200, w.root("GET", events, "", "Accept-Encoding", "identity"))
	tag := first.Header.Get("ETag")
	if len(tag) < 10 || !strings.HasPrefix(tag, `"`) {
		t.Fatalf("ETag %s", tag)
	}
	zipped := w.want(200, w.root("GET", events, "", "Accept-Encoding", "gzip")).Header.Get("ETag")
	if zipped == tag || zipped == "" {
		t.Errorf("what is compressed has the ETag %s, and what is not %s", zipped, tag)
	}
	for _, given := range []string{tag, zipped, "W/" + tag, `"x", ` + tag, "*"} {
		r := w.want(304, w.root("GET", events, "", "If-None-Match", given))
		if len(r.body) > 0 || !strings.HasPrefix(r.Header.Get("ETag"), tag[:len(tag)-1]) {
			t.Errorf("%s: %v %s", given, r.Header, r.body)
		}
	}
	w.want(304, w.root("GET", events, "", "If-None-Match", zipped, "Accept-Encoding", "gzip"))
	for _, given := range []string{`"x"`, strings.Trim(tag, `"`), ""} {
		w.want(200, w.root("GET", events, "", "If-None-Match", given))
	}
	tags := map[string]string{tag: "whole"}
	differs := func(what, query string) {
		t.Helper()
		r := w.want(200, w.root("GET", events+query, "", "If-None-Match", tag, "Accept-Encoding", "identity"))
		if had, ok := tags[r.Header.Get("ETag")]; ok {
			t.Errorf("%s has the ETag of %s", what, had)
		}
		tags[r.Header.Get("ETag")] = what
	}
	differs("less", "?limit=1")
	differs("none", "?types=none")
	w.append("acme", `{"type":"c","data":1}`)
	differs("a page that has grown", "")
	w.want(204, w.root("DELETE", events+"/"+id+"/data", ""))
	differs("a page of which something was erased", "")
	// What cannot be read is told, whatever the client has.
	w.refused("cursor_gone", "", w.root("GET", events+"?after=zzz_1", "", "If-None-Match", "*"))
}

// From the end of the log on: a page that has nothing but the cursor.
func TestReadFromNow(t *testing.T) {
	w := newWorld(t, nil)
	w.append("acme", `{"type":"a","data":1}`)
	p := w.page(events + "?after=now")
	if len(p.Data) != 0 || p.Cursor != w.cursor(1) || p.HasMore {
		t.Errorf("got %+v", p)
	}
}
