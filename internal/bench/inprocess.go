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
	Do        string `json:"do"` // open, run or close
	Dir       string `json:"dir"`
	Producers int    `json:"producers"`
	Batch     int    `json:"batch"`
	Bytes     int    `json:"bytes"`
	Nanos     int64  `json:"nanos"`
	Events    int64  `json:"events"` // ends the run by number, if not 0
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
			if a, err = app.New(app.Options{Listen: "127.0.0.1:0", Data: filepath.Join(order.Dir, "data"), AdminKey: "not-used-by-anybody"}); err != nil {
				return nil, err
			}
			return nil, a.Start(ctx)
		case "run":
			return inProcessRun(ctx, a.Appender(), order)
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
	var left atomic.Int64
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
