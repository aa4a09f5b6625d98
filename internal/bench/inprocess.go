package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/app"
)

// inProcess appends to a log without HTTP: what the store and the log can do by themselves.

type inProcessOrder struct {
	Do        string `json:"do"` // open, run, read or close
	Dir       string `json:"dir"`
	Producers int    `json:"producers"`
	Batch     int    `json:"batch"`
	Bytes     int    `json:"bytes"`
	Nanos     int64  `json:"nanos"`
	Events    int64  `json:"events"` // ends the run by number, if not 0
}

// inProcessOpened is where the opened server answers as well.
type inProcessOpened struct {
	URL string `json:"url"`
	Key string `json:"key"`
}

func inProcess(ctx context.Context, o *orders) error {
	var a *app.App
	stop := func() error {
		if a == nil {
			return nil
		}
		stopping, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		err := a.Stop(stopping)
		a = nil
		return err
	}
	err := each(o, func(order inProcessOrder) (any, error) {
		switch order.Do {
		case "open":
			var err error
			const key = "known-to-nobody-else"
			if a, err = app.New(app.Options{Listen: "127.0.0.1:0", Data: filepath.Join(order.Dir, "data"), AdminKey: key}); err != nil {
				return nil, err
			}
			if err := a.Start(ctx); err != nil {
				return nil, err
			}
			return inProcessOpened{"http://" + a.Addr(), key}, nil
		case "run":
			return inProcessRun(ctx, a.Appender(), order)
		case "read":
			return inProcessRead(ctx, a.Reader(), order.Events)
		case "close":
			return nil, stop()
		}
		return nil, fmt.Errorf("no such order: %s", order.Do)
	})
	if failed := stop(); err == nil {
		err = failed
	}
	return err
}

func inProcessRun(ctx context.Context, log eventhose.Appender, o inProcessOrder) (*partResult, error) {
	r := &partResult{Latency: &histogram{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var next, left atomic.Int64 // the number of the next event, and how many are left
	left.Store(o.Events)
	cpu, began := ownCPU(), time.Now()
	end := began.Add(time.Duration(o.Nanos))
	for p := range o.Producers {
		wg.Go(func() {
			events := make([]eventhose.Event, o.Batch)
			for i := range events {
				events[i] = eventhose.Event{Type: "order.paid", Data: appendData(nil, o.Bytes, p*o.Batch+i)}
			}
			latency, requests, failure := &histogram{}, int64(0), error(nil)
			for now := time.Now(); now.Before(end) && ctx.Err() == nil && failure == nil; {
				if o.Events > 0 && left.Add(-int64(o.Batch)) < 0 {
					break
				}
				first := next.Add(int64(o.Batch)) - int64(o.Batch)
				for i := range events {
					stamp(events[i].Data, first+int64(i), now)
				}
				if _, failure = log.Append(ctx, "default", events...); failure == nil {
					was := now
					now = time.Now()
					latency.add(now.Sub(was))
					requests++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			r.Latency.merge(latency)
			r.Requests += requests
			if failure != nil {
				r.Failed, r.Failure = r.Failed+1, failure.Error()
			}
		})
	}
	wg.Wait()
	r.Nanos, r.CPU, r.Events = int64(time.Since(began)), (ownCPU() - cpu).Microseconds(), r.Requests*int64(o.Batch)
	return r, nil
}

// inProcessRead reads so many events, from the log's beginning.
func inProcessRead(ctx context.Context, log eventhose.Reader, events int64) (*partResult, error) {
	r := &partResult{Latency: &histogram{}}
	cpu, began := ownCPU(), time.Now()
	for _, err := range log.Read(ctx, "default", 0, eventhose.Filter{}) {
		if err != nil {
			return nil, err
		}
		if r.Events++; r.Events == events {
			break
		}
	}
	r.Nanos, r.CPU = int64(time.Since(began)), (ownCPU() - cpu).Microseconds()
	return r, nil
}
