package listen_test

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/listen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestExpectations(t *testing.T) {
	for text, holds := range map[string]string{ // for 0, 1, 2 and 3 events; + holds, - not yet, x not any more
		"order.paid":          "-+++",
		"order.paid>=2":       "--++",
		"order.paid > 1":      "--++",
		"order.* <= 1":        "++xx",
		"*<2":                 "++xx",
		"order.paid==2":       "--+x",
		" order.paid  =  2  ": "--+x",
		"order.paid=0":        "+xxx",
	} {
		e, err := listen.ParseExpectation(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := ""
		for n := range len(holds) {
			switch {
			case e.Holds(n):
				got += "+"
			case e.Passed(n):
				got += "x"
			default:
				got += "-"
			}
		}
		if got != holds || !e.Matches("order.paid") || e.Matches("eventhose.subscription.disabled") {
			t.Errorf("%q holds for %s, want %s; %+v", text, got, holds, e)
		}
	}
	for _, text := range []string{"", ">=2", "order.paid>=", "order.paid>=-1", "order.paid>=+1", "order.paid=>2", "order.paid>=2x", "order.paid<0", "a b", "order.paid>=1 2", "order.*.x", "*.*", "order.paid!=1", "order.paid>=99999999999999999999"} {
		if e, err := listen.ParseExpectation(text); eventhose.CodeOf(err) != eventhose.CodeInvalid {
			t.Errorf("%q is taken for %+v (%v)", text, e, err)
		}
	}
	system, err := listen.ParseExpectation("eventhose.*>=1")
	if err != nil || !system.Matches("eventhose.subscription.disabled") || system.Matches("order.paid") {
		t.Errorf("system events: %+v, %v", system, err)
	}
}

func FuzzParseExpectation(f *testing.F) {
	for _, s := range []string{"order.paid>=2", "*", "a.*<1", "=", ">="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := listen.ParseExpectation(s)
		if err != nil {
			return
		}
		again, err := listen.ParseExpectation(e.Text)
		if err != nil || again != e {
			t.Errorf("%q is %+v, and read again %+v, %v", s, e, again, err)
		}
	})
}

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestReadRoutes(t *testing.T) {
	yaml := "routes:\n- group: erp\n  types: [order.*, mail.sent]\n  filter: data.amount > 5\n  forward_to: http://10.1.2.3/x\n  ordering: key\n  secret: " + secret + "\n- group: b\n  forward_to: localhost:1\n"
	json := `{"routes": [{"group": "erp", "types": ["order.*", "mail.sent"], "filter": "data.amount > 5", "forward_to": "http://10.1.2.3/x", "ordering": "key", "secret": "` + secret + `"}, {"group": "b", "forward_to": "localhost:1"}]}`
	for _, text := range []string{yaml, json} {
		routes, err := listen.ReadRoutes(strings.NewReader(text))
		want := []listen.Route{{Group: "erp", Filter: eventhose.Filter{Types: []string{"order.*", "mail.sent"}, Expression: "data.amount > 5"}, ForwardTo: "http://10.1.2.3/x",
			Ordering: eventhose.OrderingKey, Secret: secret}, {Group: "b", ForwardTo: "localhost:1"}}
		if err != nil || fmt.Sprintf("%#v", routes) != fmt.Sprintf("%#v", want) {
			t.Errorf("%s\nis %+v, %v", text, routes, err)
		}
	}
	for text, field := range map[string]string{
		"":            "routes",
		"routes: []":  "routes",
		"routes: 5":   "routes",
		"\x00":        "routes",
		"other: true": "routes",
		"routes: [{group: a, forward_to: localhost, colour: red}]": "routes",
		"routes: [{group: a}]":                                                                       "routes[0].forward_to",
		"routes: [{forward_to: localhost}]":                                                          "routes[0].group",
		"routes: [{group: a, forward_to: b}, {group: a, forward_to: c}]":                             "routes[1].group",
		"routes: [{group: a, forward_to: b, types: ['o r']}]":                                        "routes[0].types[0]",
		"routes: [{group: a, forward_to: b, ordering: x}]":                                           "routes[0].ordering",
		"routes: [{group: a, forward_to: b, secret: whsec_x}]":                                       "routes[0].secret",
		"routes: [{group: a, forward_to: b, secret: [" + secret + "]}]":                              "routes",
		"routes: [{group: a, forward_to: b, types: " + secret + "}]":                                 "routes",
		"routes: [{group: " + strings.Repeat("g", listen.MaxGroup+1) + ", forward_to: b}]":           "routes[0].group",
		"routes: [{group: a, forward_to: b, filter: '" + strings.Repeat("x", 5000) + "'}]":           "routes[0].filter",
		"routes: [" + strings.Repeat("{group: a, forward_to: b},", 101) + "]":                        "routes",
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b]\nroutes: [*b]": "routes",
	} {
		routes, err := listen.ReadRoutes(strings.NewReader(text))
		e, _ := err.(*eventhose.Error)
		if e == nil || e.Field != field || strings.Contains(err.Error(), secret) {
			t.Errorf("%.200s\nis %+v, %v; want a refusal of %s", text, routes, err, field)
		}
	}
	if _, err := listen.ReadRoutes(strings.NewReader(strings.Repeat("#", 2<<20))); eventhose.CodeOf(err) != eventhose.CodeTooLarge {
		t.Errorf("2 MiB: %v", err)
	}
}
