// Package differential compares the verifiers of internal/gateway with those that providers publish for Go. It is a module
// of its own, so that nothing of theirs comes into the server.
//
// A request is signed rightly, then changed by a small program of bytes, and shown to both. Where they disagree, we refuse
// what the library takes for a reason that is written here, or take what it refuses for one that is written here too.
package differential

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/eventhose/eventhose/internal/gateway"
)

// library is one provider's verifier.
type library struct {
	provider string
	settings gateway.Settings
	// sign answers a request that is right. ts is the time as it is written.
	sign func(body []byte, ts string) *gateway.Request
	// takes is what the library says.
	takes func(r *gateway.Request) bool
	// stricter is why we refuse what the library takes, beside everywhere; wider why we take what it refuses.
	stricter, wider []difference
}

// difference is a place in which we differ on purpose.
type difference struct {
	why   string
	holds func(r *gateway.Request, j *gateway.Rejection) bool
}

// everywhere is in what we are stricter than every library.
var everywhere = []difference{
	{"an empty body is no event", func(r *gateway.Request, j *gateway.Rejection) bool {
		return j.Reason == gateway.ReasonBody && len(r.Body) == 0
	}},
	{"a header that came twice may have been read otherwise before us", because(gateway.ReasonHeaderRepeated)},
	{"more than 20 signatures, pairs or versions are not looked at", func(r *gateway.Request, j *gateway.Rejection) bool {
		return strings.Contains(j.Detail, "at most 20") || strings.Contains(j.Detail, "20 are allowed")
	}},
}

func because(reason gateway.Reason) func(*gateway.Request, *gateway.Rejection) bool {
	return func(_ *gateway.Request, j *gateway.Rejection) bool { return j.Reason == reason }
}

// malformedTime: the time in a header is not 1 to 13 digits.
func malformedTime(header string) func(*gateway.Request, *gateway.Rejection) bool {
	return func(r *gateway.Request, j *gateway.Rejection) bool {
		return (j.Reason == gateway.ReasonHeaderMalformed || j.Reason == gateway.ReasonHeaderMissing) && !digits(r.Header.Get(header))
	}
}

func digits(s string) bool { return s != "" && len(s) <= 13 && strings.Trim(s, "0123456789") == "" }

const tolerance = 5 * time.Minute

// input is what a request is made of.
type input struct {
	body    []byte
	offset  int64 // seconds from now
	program []byte
}

// tally is what became of some runs.
type tally struct {
	taken, refused int // by both
	used           map[string]bool
}

// run signs, changes and compares.
func (l *library) run(t *testing.T, v *gateway.Verifier, in input, n *tally) {
	now := time.Now()
	off := in.offset % 1000
	if abs := max(off, -off); abs > 280 && abs < 320 {
		off = 0 // the libraries ask the clock themselves, a moment later than we
	}
	ts := fmt.Sprint(now.Unix() + off)
	signed, sent := ts, ts
	if len(in.program) > 0 {
		switch in.program[0] % 10 {
		case 1:
			signed, sent = "+"+ts, "+"+ts
		case 2:
			signed, sent = "0"+ts, "0"+ts
		case 3:
			signed, sent = "0000"+ts, "0000"+ts
		case 4:
			signed, sent = "-"+ts, "-"+ts
		case 5:
			signed, sent = ts+"000", ts+"000"
		case 6:
			sent = "+" + ts
		case 7:
			sent = "0" + ts
		case 8:
			sent = "0000" + ts
		}
	}
	r := l.sign(bytes.Clone(in.body), signed)
	for name := range r.Header {
		r.Header.Set(name, strings.ReplaceAll(r.Header.Get(name), signed, sent))
	}
	r.Method, r.Received = http.MethodPost, now
	change(r, in.program[min(1, len(in.program)):])
	if !deliverable(r.Header) {
		return
	}
	theirs := l.takes(copied(r))
	verdict := v.Verify(context.Background(), copied(r))
	ours := verdict.Rejection == nil
	var why string
	switch {
	case theirs && ours:
		n.taken++
	case theirs:
		if why = reason(append(slices.Clone(everywhere), l.stricter...), r, verdict.Rejection); why == "" {
			t.Errorf("%s: the library takes what we refuse because of %s\n%s", l.provider, verdict.Rejection, shown(r))
		}
	case ours:
		if why = reason(l.wider, r, &gateway.Rejection{}); why == "" {
			t.Errorf("%s: we take what the library refuses\n%s", l.provider, shown(r))
		}
	default:
		n.refused++
	}
	if why != "" && n.used != nil {
		n.used[why] = true
	}
}

// reason answers why two verifiers may differ about a request, "" if there is no reason.
func reason(all []difference, r *gateway.Request, j *gateway.Rejection) string {
	for _, d := range all {
		if d.holds(r, j) {
			return d.why
		}
	}
	return ""
}

func copied(r *gateway.Request) *gateway.Request {
	c := *r
	c.Header, c.Body = r.Header.Clone(), bytes.Clone(r.Body)
	return &c
}

func shown(r *gateway.Request) string { return fmt.Sprintf("%q\n%q\n%q", r.Query, r.Header, r.Body) }

// change applies a program: three bytes are what, where and with what.
func change(r *gateway.Request, program []byte) {
	var names []string
	for name := range r.Header {
		if name != "Content-Type" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for ; len(program) >= 4; program = program[4:] {
		name := names[int(program[1])%len(names)]
		at, with := int(binary.BigEndian.Uint16(program[1:])), program[3]
		value := r.Header.Get(name)
		switch program[0] % 18 {
		case 0:
			if len(r.Body) > 0 {
				r.Body[at%len(r.Body)] ^= 1 << (with % 8)
			}
		case 1:
			r.Body = slices.Insert(r.Body, at%(len(r.Body)+1), with)
		case 2:
			if value != "" {
				b := []byte(value)
				b[int(program[2])%len(b)] ^= 1 << (with % 8)
				r.Header.Set(name, string(b))
			}
		case 3:
			i := int(program[2]) % (len(value) + 1)
			r.Header.Set(name, value[:i]+string(rune(with%128))+value[i:])
		case 4:
			if value != "" {
				i := int(program[2]) % len(value)
				r.Header.Set(name, value[:i]+value[i+1:])
			}
		case 5:
			r.Header.Add(name, value)
		case 6:
			r.Header.Del(name)
		case 7:
			r.Header.Set(name, strings.ToUpper(value))
		case 8:
			r.Header.Set(name, value+[]string{",", ";", " ", "=", "."}[with%5]+value)
		case 9:
			r.Header.Set(name, []string{"t=1,", "v1=00,", "v0=00,", "v1,AAAA ", "h1=00;", "x=y,", "v2,x ", "sha1=", "=x,"}[with%9]+value)
		case 10:
			r.Header.Set(name, value+[]string{",v1=00", ",v0=00", " v1,AAAA", ";h1=00", ",x=y", " v2,x", ",t=1", ",extra"}[with%8])
		case 11:
			r.Header.Set(name, strings.TrimRight(value, "="))
		case 12:
			r.Header.Set(name, strings.NewReplacer("+", "-", "/", "_").Replace(value))
		case 13:
			r.Body = bytes.ReplaceAll(r.Body, []byte("\n"), []byte("\r\n"))
		case 14:
			r.Header.Set(name, value[:len(value)-min(len(value), int(with)%4)])
		case 15:
			r.Body = append(r.Body, r.Body[:min(len(r.Body), int(with))]...)
		case 16: // the same bytes and one more
			if b, err := base64.StdEncoding.DecodeString(value); err == nil {
				r.Header.Set(name, base64.StdEncoding.EncodeToString(append(b, with)))
			}
		case 17: // the same bytes, with a bit behind the last
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
			if bare := strings.TrimRight(value, "="); bare != value && bare != "" {
				if last := strings.IndexByte(alphabet, bare[len(bare)-1]); last >= 0 {
					r.Header.Set(name, bare[:len(bare)-1]+string(alphabet[(last|1)%64])+value[len(bare):])
				}
			}
		}
		if len(r.Body) > 4096 {
			r.Body = r.Body[:4096]
		}
	}
}

// deliverable reports whether net/http would have handed such headers on.
func deliverable(h http.Header) bool {
	for _, values := range h {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) || strings.TrimSpace(v) != v {
				return false
			}
		}
	}
	return true
}

func (l *library) verifier(t testing.TB) *gateway.Verifier {
	t.Helper()
	v, err := gateway.New(l.provider, l.settings, gateway.Surroundings{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Whatever is signed rightly is taken by both, and of what is changed at random both think the same.
func TestLibrariesAgree(t *testing.T) {
	for _, l := range libraries() {
		t.Run(l.provider, func(t *testing.T) {
			t.Parallel()
			v := l.verifier(t)
			ts := fmt.Sprint(time.Now().Unix())
			r := l.sign([]byte(`{"id":"evt_1","type":"order.created"}`), ts)
			r.Method, r.Received = http.MethodPost, time.Now()
			if verdict := v.Verify(t.Context(), copied(r)); verdict.Rejection != nil || !l.takes(copied(r)) {
				t.Fatalf("what is right: we say %v, the library %v", verdict.Rejection, l.takes(copied(r)))
			}
			random := rand.New(rand.NewPCG(1, 2))
			n := &tally{used: map[string]bool{}}
			for i := range 10_000 {
				in := input{body: make([]byte, random.IntN(60)), offset: random.Int64N(2000) - 1000, program: make([]byte, 1+4*random.IntN(4))}
				const letters = "{\"a\":1}\r\n&=+%\xc3\xa9 "
				for j := range in.body {
					in.body[j] = letters[random.IntN(len(letters))]
				}
				for j := range in.program {
					in.program[j] = byte(random.Uint32())
				}
				if i%2 == 0 {
					in.program[0] = 0
				}
				if i%3 == 0 {
					in.offset = 0
				}
				if l.run(t, v, in, n); t.Failed() {
					return
				}
			}
			if n.taken < 500 || n.refused < 500 {
				t.Errorf("both took %d and both refused %d: the comparison says little", n.taken, n.refused)
			}
			for _, d := range append(l.stricter, l.wider...) {
				if !n.used[d.why] {
					t.Errorf("no request shows the difference %q", d.why)
				}
			}
		})
	}
}
