package interop_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/gateway"
)

const adyenKey = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"

// adyenSigned are the fields that are signed, in their order; those behind a full stop are of the amount.
var adyenSigned = []string{"pspReference", "originalReference", "merchantAccountCode", "merchantReference", ".value", ".currency", "eventCode", "success"}

// Our verifier and Adyen's library for Python think the same of notifications that were changed before they were signed, as Adyen might
// write them, or behind it, as somebody on the way might; but where they differ for a reason that is written here and in
// test/differential/README.md.
func TestAdyenLibraryAgrees(t *testing.T) {
	library := startAdyen(t)
	v, err := gateway.New("adyen", gateway.Settings{Secrets: []eventhose.Secret{adyenKey}}, gateway.Surroundings{})
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	notifications := make([]*adyenNotification, 10_000)
	bodies := make([][]byte, len(notifications))
	for i := range notifications {
		n := newAdyenNotification(random)
		for range random.IntN(3) {
			n.change(random)
		}
		notifications[i], bodies[i] = n, n.body()
	}
	signatures := make([]string, len(notifications))
	library.ask("sign", bodies, &signatures)
	for i, n := range notifications {
		signature := signatures[i]
		if random.IntN(2) > 0 || signature == "" {
			signature = n.sign()
		}
		n.additional = append(n.additional, member{"hmacSignature", quote(signature)})
		for range random.IntN(3) {
			n.change(random)
		}
		if bodies[i] = n.body(); random.IntN(8) == 0 {
			bodies[i] = spoil(random, bodies[i])
		}
	}
	takes := make([]bool, len(notifications))
	library.ask("judge", bodies, &takes)
	taken, refused, used := 0, 0, map[string]bool{}
	for i, body := range bodies {
		theirs := takes[i]
		rejection := v.Verify(t.Context(), &gateway.Request{Method: http.MethodPost, Header: http.Header{}, Body: body, Received: time.Now()}).Rejection
		var list []adyenDifference
		switch {
		case theirs && rejection == nil:
			taken++
			continue
		case theirs:
			list = adyenStricter
		case rejection == nil:
			list = adyenWider
		default:
			refused++
			continue
		}
		which := slices.IndexFunc(list, func(d adyenDifference) bool { return d.holds(readAdyenBody(body), rejection) })
		if which < 0 {
			t.Fatalf("the library takes it: %v; our rejection: %v\n%q", theirs, rejection, body)
		}
		used[list[which].why] = true
	}
	if taken < 1000 || refused < 1000 {
		t.Errorf("both took %d and both refused %d: the comparison says little", taken, refused)
	}
	for _, d := range append(adyenStricter, adyenWider...) {
		if !used[d.why] {
			t.Errorf("no notification shows the difference %q", d.why)
		}
	}
}

// adyenDifference is a place in which we differ on purpose.
type adyenDifference struct {
	why   string
	holds func(n *adyenBody, r *gateway.Rejection) bool
}

// adyenStricter is what the library takes and we refuse.
var adyenStricter = []adyenDifference{
	{"of several items it looks at the first", func(n *adyenBody, r *gateway.Rejection) bool {
		return n.items > 1 && strings.Contains(r.Detail, "Adyen sends one")
	}},
	{"Python reads NaN, UTF-16 and a mark before UTF-8 as JSON", func(n *adyenBody, r *gateway.Rejection) bool {
		return !n.json && r.Reason == gateway.ReasonBody
	}},
	{"a name twice may be read as either", func(n *adyenBody, r *gateway.Rejection) bool {
		return n.json && n.twice && r.Reason == gateway.ReasonBody
	}},
	{"an item by itself is no notification", func(n *adyenBody, r *gateway.Rejection) bool {
		return n.items == 0 && n.bare && r.Reason == gateway.ReasonBody
	}},
	{"a colon in a field that cannot have one lets the fields be cut at another place", func(n *adyenBody, r *gateway.Rejection) bool {
		return strings.Contains(r.Detail, "colon") && slices.ContainsFunc(adyenSigned, func(name string) bool {
			return name != "merchantReference" && strings.Contains(textOf(string(n.signed[name])), ":")
		})
	}},
	{"a number or boolean where Adyen writes text, text where it writes a number, a fraction", func(n *adyenBody, r *gateway.Rejection) bool {
		return r.Reason == gateway.ReasonBody && slices.ContainsFunc(adyenSigned, func(name string) bool { return !ofItsKind(name, n.signed[name]) })
	}},
	{"null, true, false and -0 it signs as Python writes them: None, True, False and 0", func(n *adyenBody, r *gateway.Rejection) bool {
		return r.Reason == gateway.ReasonNoMatch && n.pythonic()
	}},
}

// adyenWider is what the library refuses and we take.
var adyenWider = []adyenDifference{
	{"null, true, false and -0 are signed as JSON writes them, null as nothing", func(n *adyenBody, _ *gateway.Rejection) bool { return n.pythonic() }},
	{"a notification without an amount, or with one that is null", func(n *adyenBody, _ *gateway.Rejection) bool { return !n.amount }},
	{"an amount without a value or a currency, which are signed as nothing", func(n *adyenBody, _ *gateway.Rejection) bool {
		return n.signed[".value"] == nil || n.signed[".currency"] == nil
	}},
}

// adyenBody is what a body has, read as leniently as can be.
type adyenBody struct {
	json, twice, bare, amount bool
	items                     int
	signed                    map[string]json.RawMessage
}

func readAdyenBody(body []byte) *adyenBody {
	value := jsontext.Value(body)
	n := &adyenBody{json: json.Valid(body) && value.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)), signed: map[string]json.RawMessage{}}
	n.twice = n.json && !value.IsValid(jsontext.AllowInvalidUTF8(true))
	var outer map[string]json.RawMessage
	if json.Unmarshal(body, &outer) != nil {
		return n
	}
	var items []map[string]json.RawMessage
	_ = json.Unmarshal(outer["notificationItems"], &items)
	item := outer
	if n.items = len(items); n.items > 0 {
		item = nil
		_ = json.Unmarshal(items[0]["NotificationRequestItem"], &item)
	}
	n.bare = item["additionalData"] != nil
	var amount map[string]json.RawMessage
	_ = json.Unmarshal(item["amount"], &amount)
	n.amount = amount != nil
	for _, name := range adyenSigned {
		if of, inner := strings.CutPrefix(name, "."); inner {
			n.signed[name] = amount[of]
		} else {
			n.signed[name] = item[name]
		}
	}
	return n
}

// pythonic reports whether a signed field is of those that Python writes otherwise than JSON.
func (n *adyenBody) pythonic() bool {
	return slices.ContainsFunc(adyenSigned, func(name string) bool {
		return slices.Contains([]string{"null", "true", "false", "-0"}, string(n.signed[name]))
	})
}

// ofItsKind reports whether a field is as Adyen could write it; an absent one, or null, is.
func ofItsKind(name string, value json.RawMessage) bool {
	switch s := string(value); {
	case s == "" || s == "null":
		return true
	case name == ".value":
		return strings.Trim(strings.TrimPrefix(s, "-"), "0123456789") == ""
	case name == "success":
		return slices.Contains([]string{`""`, `"true"`, `"false"`, "true", "false"}, s)
	default:
		return s[0] == '"'
	}
}

// adyenLibrary is Adyen's library in a process of Python.
type adyenLibrary struct {
	t    *testing.T
	to   *json.Encoder
	from *json.Decoder
}

func startAdyen(t *testing.T) *adyenLibrary {
	t.Helper()
	script := exec.CommandContext(t.Context(), python, "adyen.py", adyenKey)
	var stderr bytes.Buffer
	script.Stderr = &stderr
	in, err := script.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := script.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := script.Start(); err != nil {
		t.Fatalf("%v (test/needs installs what it needs)", err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := script.Wait(); t.Context().Err() == nil && err != nil {
			t.Errorf("%v: %s", err, stderr.String())
		}
	})
	return &adyenLibrary{t, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))}
}

// ask has it answer about each body; what it has no answer to is zero.
func (l *adyenLibrary) ask(what string, bodies [][]byte, answers any) {
	l.t.Helper()
	if err := l.to.Encode([]any{what, bodies}); err != nil {
		l.t.Fatal(err)
	}
	if err := l.from.Decode(answers); err != nil {
		l.t.Fatal(err)
	}
}

// member is one of an object, its value as JSON writes it.
type member struct{ name, value string }

// adyenNotification is a notification that can be changed in ways that an object of Go cannot.
type adyenNotification struct {
	item, amount, additional []member
	wrap                     string // what is around the item, which is written for each %s
}

func newAdyenNotification(random *rand.Rand) *adyenNotification {
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	return &adyenNotification{
		item: []member{
			{"amount", ""}, // which is written of its own
			{"additionalData", ""},
			{"eventCode", pick(`"AUTHORISATION"`, `"CAPTURE"`, `"REPORT_AVAILABLE"`)},
			{"eventDate", `"2026-03-01T10:00:00+01:00"`},
			{"merchantAccountCode", pick(`"Example"`, `"Example_EU"`)},
			{"merchantReference", pick(`"order-1"`, `"order:1"`, `""`, `"Bestellung \u00e4"`, `"é😀\u2028\\ \""`)},
			{"originalReference", pick(`""`, `"9913140798220028"`)},
			{"pspReference", pick(`"7914073381342284"`, `"report_2026_03_01.csv"`)},
			{"success", pick(`"true"`, `"false"`)},
		},
		amount: []member{{"currency", pick(`"EUR"`, `"JPY"`, `""`)}, {"value", pick("1130", "0", "-5", "12345678901234567890")}},
		wrap:   `{"live":"false","notificationItems":[{"NotificationRequestItem":%s}]}`,
	}
}

// change applies one change to one place.
func (n *adyenNotification) change(random *rand.Rand) {
	part := &n.item
	switch random.IntN(5) {
	case 0, 1:
		part = &n.amount
	case 2:
		part = &n.additional
	}
	if len(*part) == 0 {
		*part = append(*part, member{"issuer", `"a:b"`})
	}
	i := random.IntN(len(*part))
	m := &(*part)[i]
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	switch text, isText := strings.CutPrefix(m.value, `"`); random.IntN(16) {
	case 0:
		*part = slices.Delete(*part, i, i+1)
	case 1:
		m.value = "null"
	case 2:
		m.value = pick("true", "false", "1", "1.5", "1e3", "1000.0", "-0", "0", "01", "NaN", "[]", "{}", `["a"]`)
	case 3:
		m.value = pick(`"true"`, `"false"`, `"True"`, `"None"`, `"1130"`, `"-"`, `" "`)
	case 4:
		m.value = `""`
	case 5: // the same text with an escape
		if isText && text[0] < 0x80 && text[0] != '\\' && text[0] != '"' {
			m.value = fmt.Sprintf(`"\u%04x%s`, text[0], text[1:])
		}
	case 6:
		if isText {
			m.value = pick(`":`, `"\u003a`, `"\\:`) + text
		}
	case 7:
		if isText {
			m.value = `"` + pick(`\ud83d`, `\ude00`, `\u0000`, `\ufffd`, "\xff", "\t", "é", "😀", `\ud83d\ude00`) + text
		}
	case 8:
		m.value = quote(strings.Trim(m.value, `"`)) // a number as a string
	case 9:
		*part = append(*part, member{m.name, pick(m.value, `"x"`)})
	case 10:
		m.name = pick(strings.ToUpper(m.name[:1])+m.name[1:], strings.ToLower(m.name), m.name+" ")
	case 11:
		*part = slices.Insert(*part, i, member{pick("reason", "note", "value", "currency", "operations", "hmacSignature"), pick(`"x"`, `null`, `"\ud83d"`, `{"a":1,"a":2}`, "1e400")})
	case 12: // what two neighbours hold is cut at another place
		n.recut(random)
	case 13:
		n.wrap = pick(`{"notificationItems":[{"NotificationRequestItem":%s},{"NotificationRequestItem":%[1]s}]}`, `{"notificationItems":[{"NotificationRequestItem":%s},{}]}`,
			`%s`, `[%s]`, `{"notificationItems":[]}`, `{"notificationItems":null,"NotificationRequestItem":%s}`, `{"notificationItems":[{"NotificationRequestItem":%s}],"notificationItems":[]}`,
			`{"notificationItems":[{"notificationRequestItem":%s}]}`, ` { "notificationItems" : [ {"NotificationRequestItem" : %s } ] } `)
	case 14:
		if isText && len(text) > 1 {
			m.value = `"` + text[1:]
		}
	case 15: // base64 of another form, if it is the signature
		m.value = pick(strings.ReplaceAll(m.value, "=", ""), strings.ReplaceAll(m.value, `="`, `=="`), strings.NewReplacer("+", "-", "/", "_").Replace(m.value), strings.ToLower(m.value), strings.ReplaceAll(m.value, `="`, `=\n"`))
	}
}

// recut moves a colon from between two fields into one of them.
func (n *adyenNotification) recut(random *rand.Rand) {
	names := adyenSigned[:4]
	at := random.IntN(3)
	left, right := n.find(names[at]), n.find(names[at+1])
	if left == nil || right == nil || left.value[:1] != `"` || right.value[:1] != `"` {
		return
	}
	text := strings.Trim(right.value, `"`)
	if head, tail, ok := strings.Cut(text, ":"); ok {
		left.value, right.value = strings.TrimSuffix(left.value, `"`)+":"+head+`"`, `"`+tail+`"`
		return
	}
	right.value, left.value = `"`+strings.Trim(left.value, `"`)+":"+text+`"`, `""`
}

// find answers the last member of a name, or nil.
func (n *adyenNotification) find(name string) *member {
	part := n.item
	if of, inner := strings.CutPrefix(name, "."); inner {
		part, name = n.amount, of
	}
	for i := len(part) - 1; i >= 0; i-- {
		if part[i].name == name {
			return &part[i]
		}
	}
	return nil
}

// sign signs the fields as JSON writes them.
func (n *adyenNotification) sign() string {
	var fields []string
	for _, name := range adyenSigned {
		text := ""
		if m := n.find(name); m != nil {
			text = textOf(m.value)
		}
		fields = append(fields, text)
	}
	key, _ := hex.DecodeString(adyenKey)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(strings.Join(fields, ":")))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// textOf is the content of a string, nothing for null, and other values as they are written.
func textOf(value string) (text string) {
	if json.Unmarshal([]byte(value), &text) != nil {
		return value
	}
	return text
}

func (n *adyenNotification) body() []byte {
	item := object(n.item, map[string]string{"amount": object(n.amount, nil), "additionalData": object(n.additional, nil)})
	if !strings.Contains(n.wrap, "%") {
		return []byte(n.wrap)
	}
	return fmt.Appendf(nil, n.wrap, item)
}

// object writes members; one without a value has that of its name.
func object(members []member, values map[string]string) string {
	var written []string
	for _, m := range members {
		if m.value == "" {
			m.value = values[m.name]
		}
		if m.value == "" {
			continue // it has another name now
		}
		written = append(written, quote(m.name)+":"+m.value)
	}
	return "{" + strings.Join(written, ",") + "}"
}

// spoil changes a body as text.
func spoil(random *rand.Rand, body []byte) []byte {
	switch at := random.IntN(len(body)); random.IntN(5) {
	case 0:
		return append([]byte("\xef\xbb\xbf"), body...)
	case 1:
		return append(body, " x"[random.IntN(2)])
	case 2:
		body[at] ^= 1 << random.IntN(8)
	case 3:
		return body[:at]
	case 4:
		wide := make([]byte, 0, 2*len(body))
		for _, c := range body {
			wide = append(wide, c, 0)
		}
		return wide
	}
	return body
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}
