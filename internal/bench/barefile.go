package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The bare file is the least that keeps a promise: producers hand over what they have and wait; one writer takes
// whatever waits, appends it to a file with one write, and syncs. No index, no checksum, no order but the file's.

type bareFileOrder struct {
	Dir       string `json:"dir"`
	Producers int    `json:"producers"`
	Batch     int    `json:"batch"`
	Bytes     int    `json:"bytes"`
	Nanos     int64  `json:"nanos"`
}

func bareFile(ctx context.Context, o *orders) error {
	return each(o, func(order bareFileOrder) (any, error) { return bareFileRun(ctx, order) })
}

type handed struct {
	body []byte
	done chan error
}

func bareFileRun(ctx context.Context, o bareFileOrder) (_ *partResult, err error) {
	name := filepath.Join(o.Dir, "bare-file")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	queue := make(chan handed, o.Producers)
	var writer sync.WaitGroup
	writer.Go(func() {
		var group []byte
		var waiting []chan error
		for h := range queue {
			group, waiting = append(group[:0], h.body...), append(waiting[:0], h.done)
		more:
			for len(group) < 4<<20 {
				select {
				case h, ok := <-queue:
					if !ok {
						break more
					}
					group, waiting = append(group, h.body...), append(waiting, h.done)
				default:
					break more
				}
			}
			_, err := f.Write(group)
			if err == nil {
				err = f.Sync()
			}
			for _, done := range waiting {
				done <- err
			}
		}
	})
	r := &partResult{Latency: &histogram{}}
	cpu, began := ownCPU(), time.Now()
	end := began.Add(time.Duration(o.Nanos))
	var mu sync.Mutex
	var producers sync.WaitGroup
	for p := range o.Producers {
		producers.Go(func() {
			var body []byte
			for i := range o.Batch {
				body = appendData(body, o.Bytes, p*o.Batch+i)
			}
			latency, done := &histogram{}, make(chan error, 1)
			requests, failure := int64(0), error(nil)
			for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
				queue <- handed{body, done}
				if failure = <-done; failure != nil {
					break
				}
				was := now
				now = time.Now()
				latency.add(now.Sub(was))
				requests++
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
	producers.Wait()
	close(queue)
	writer.Wait()
	r.Nanos, r.CPU, r.Events = int64(time.Since(began)), (ownCPU() - cpu).Microseconds(), r.Requests*int64(o.Batch)
	return r, nil
}
