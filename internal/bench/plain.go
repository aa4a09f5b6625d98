package bench

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The plain loop is what anybody writes first: a net/http client in a loop, which stores nothing, signs nothing and
// records nothing. It keeps as many idle connections as it has workers.

type plainOrder struct {
	URL     string `json:"url"`
	Workers int    `json:"workers"`
	Bytes   int    `json:"bytes"`
	Nanos   int64  `json:"nanos"`
	First   int64  `json:"first"`
}

// partResult is what a part that makes load answers.
type partResult struct {
	// Events were acknowledged, in so many requests. Next is the first number that was not used.
	Events   int64 `json:"events"`
	Requests int64 `json:"requests"`
	Next     int64 `json:"next"`
	Nanos    int64 `json:"nanos"`
	CPU      int64 `json:"cpu_us"` // that the part used for it
	// Latency is of the acknowledged requests, Refusals of those that were answered 429 or 503.
	Latency  *histogram `json:"latency"`
	Refused  int64      `json:"refused,omitempty"`
	Refusals *histogram `json:"refusals,omitempty"`
	// Late counts requests of an open loop that went out more than 10 ms after their time.
	Late   int64 `json:"late,omitempty"`
	Failed int64 `json:"failed,omitempty"`
	// Failure is the first of those.
	Failure string `json:"failure,omitempty"`
}

func (p *partResult) perSecond() float64 { return float64(p.Events) / (float64(p.Nanos) / 1e9) }

func plain(ctx context.Context, o *orders) error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	return each(o, func(order plainOrder) (any, error) {
		transport.MaxIdleConns, transport.MaxIdleConnsPerHost = order.Workers, order.Workers
		return plainRun(ctx, client, order), nil
	})
}

func plainRun(ctx context.Context, client *http.Client, o plainOrder) *partResult {
	r := &partResult{Latency: &histogram{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var next atomic.Int64
	next.Store(o.First)
	cpu, began := ownCPU(), time.Now()
	end := began.Add(time.Duration(o.Nanos))
	for worker := range o.Workers {
		wg.Go(func() {
			latency := &histogram{}
			body := appendData(nil, o.Bytes, worker)
			events, failed, failure := int64(0), int64(0), ""
			for now := time.Now(); now.Before(end) && ctx.Err() == nil; {
				stamp(body, next.Add(1)-1, now)
				if err := post(ctx, client, o.URL, body); err != nil {
					failed, failure = failed+1, err.Error()
					if failed > 100 {
						break
					}
					continue
				}
				done := time.Now()
				latency.add(done.Sub(now))
				events++
				now = done
			}
			mu.Lock()
			defer mu.Unlock()
			r.Latency.merge(latency)
			r.Events += events
			if r.Failed += failed; failure != "" {
				r.Failure = failure
			}
		})
	}
	wg.Wait()
	r.Nanos, r.CPU = int64(time.Since(began)), (ownCPU() - cpu).Microseconds()
	r.Requests, r.Next = r.Events, next.Load()
	return r
}

func post(ctx context.Context, client *http.Client, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return err
}
