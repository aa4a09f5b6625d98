package storetest

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

func limitCases() []Case {
	return []Case{
		{"limits/event", "the largest event that the API takes is stored as it came", func(t *trial) {
			big := event(strings.Repeat("i", eventhose.MaxEventID), "", 1)
			big.Event.Data = bytes.Repeat([]byte("0123456789abcdef"), eventhose.MaxData/16)
			big.Event.Scope, big.Event.Key = strings.Repeat("s", eventhose.MaxEventID), strings.Repeat("k", eventhose.MaxKey)
			big.Event.Type, big.Event.Version = strings.Repeat("t", eventhose.MaxType), strings.Repeat("v", eventhose.MaxVersion)
			big.Event.Attributes = map[string]string{}
			for i := range eventhose.MaxAttributes {
				big.Event.Attributes[fmt.Sprintf("%064d", i)] = strings.Repeat("a", eventhose.MaxAttribute)
			}
			tenant := eventhose.TenantID(strings.Repeat("t", 64))
			t.group(store.Append{Tenant: tenant, Parent: platform, Events: []store.NewEvent{event("", "small", 1), big}})
			want := big.Event
			want.Tenant, want.Sequence = tenant, 2
			for range 2 {
				t.ok("read", SameEvent(t.read(tenant, 1)[0], &want))
				t.ok("lookup", SameEvent(t.lookup(tenant, store.Ref{Scope: want.Scope, ID: want.ID}), &want))
				t.same("data in the parent's log", len(t.read(platform, 1)[0].Data), eventhose.MaxData)
				t.reopen()
			}
		}},
		{"limits/append", "the largest append that the API takes is stored as one", func(t *trial) {
			var events []store.NewEvent
			for i := range eventhose.MaxAppend {
				id := ""
				if i%2 == 0 {
					id = fmt.Sprintf("e%d", i+1)
				}
				events = append(events, event(id, fmt.Sprintf("%0800d", i+1), 1))
			}
			t.append(acme, events...)
			t.reopen()
			got := t.read(acme, 0)
			t.same("events", len(got), eventhose.MaxAppend)
			for i, e := range got {
				if string(e.Data) != string(events[i].Event.Data) || i%2 == 0 && e.ID != events[i].Event.ID {
					t.fatalf("place %d holds %q", i+1, e.ID)
				}
			}
			t.same("repeat", t.append(acme, events[0], events[9998])[1], eventhose.Placement{ID: "e9999", Sequence: 9999, Duplicate: true})
		}},
		{"limits/record", "a record of 256 KiB is stored as it came", func(t *trial) {
			t.save(record(acme, "big", strings.Repeat("i", 256), 0, strings.Repeat("0123456789abcdef", 16<<10)))
			t.reopen()
			got, err := t.s.Record(t.ctx, acme, "big", strings.Repeat("i", 256))
			t.ok("record", err)
			t.same("bytes", len(got.Value), 256<<10)
		}},
		{"limits/lane", "a lane at its bounds (1,024 settled, 10,000 parked) is stored as it came", func(t *trial) {
			t.append(acme, event("", "x", 1))
			c := fullLane(subA)
			c.Lane.Settled = nil
			for i := range 1024 {
				c.Lane.Settled = append(c.Lane.Settled, eventhose.Sequence(10+3*i))
			}
			t.change(c)
			for from := 0; from < eventhose.MaxParked; from += 1000 {
				c.Park = nil
				for i := range 1000 {
					c.Park = append(c.Park, parkedRow(eventhose.Sequence(from+i+1), eventhose.ParkedRetrying))
				}
				t.change(c)
			}
			t.reopen()
			row, _ := t.lane(acme, subA)
			t.same("row", row, c.Lane)
			t.same("parked", len(t.parked(acme, subA, store.ParkedQuery{Limit: 20_000})), eventhose.MaxParked)
		}},
		{"limits/lanes", "thousands of idle lanes cost nothing to those who ask for work", func(t *trial) {
			var p store.Progress
			for i := range 2000 {
				p.Lanes = append(p.Lanes, newLane(acme, eventhose.SubscriptionID(fmt.Sprintf("sub_%026d", i))))
			}
			p.Lanes[1234].Lane.Behind = true
			t.commit(p)
			t.reopen()
			t.same("work", t.work(), []store.Lane{p.Lanes[1234].Lane})
		}},
	}
}
