package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/client"
)

// rig is a server with the parts around it.
type rig struct {
	b                      *bench
	dir                    string // "" with a server that was running
	server                 *server
	database               *database // nil with one that was running, or with a directory
	receiver, load         *part
	plainLoop, bareFile    *part // with a database the pgx loop takes the place of the bare file
	receiverURL, silentURL string
	next                   int64 // the next number of an event
	group                  int   // the next free group of the receiver
	callReceiver           sync.Mutex
}

// rig answers the one that scenarios share, its log preloaded.
func (b *bench) rig(ctx context.Context) (*rig, error) {
	if b.shared != nil {
		return b.shared, nil
	}
	r, err := b.newRig(ctx, b.Preload)
	if err == nil {
		b.shared = r
	}
	return r, err
}

// newRig starts everything, and fills the log.
func (b *bench) newRig(ctx context.Context, preload int) (_ *rig, err error) {
	r := &rig{b: b, next: 1}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if b.URL == "" {
		if r.dir, err = b.temporary(); err != nil {
			return nil, err
		}
	}
	b.tell("starting", 0, 0)
	bare := partBareFile
	if b.DatabaseURL != "" {
		bare = partPgxLoop
		if r.database, err = b.newDatabase(ctx); err != nil {
			return nil, err
		}
	}
	if r.server, err = b.startServer(ctx, r.dir, r.database); err != nil {
		return nil, err
	}
	for name, p := range map[string]**part{partReceiver: &r.receiver, partLoad: &r.load, partPlain: &r.plainLoop, bare: &r.bareFile} {
		if *p, err = b.startPart(ctx, name); err != nil {
			return nil, err
		}
	}
	var s receiverStats
	if err := r.receiver.call(ctx, receiverOrder{Do: "url"}, &s); err != nil {
		return nil, err
	}
	r.receiverURL, r.silentURL = s.URL, s.Silent
	return r, r.preload(ctx, preload)
}

// preload appends events that no subscription wants.
func (r *rig) preload(ctx context.Context, events int) error {
	const step = 100_000
	for done := 0; done < events; done += step {
		r.b.tell("preloading", done, events)
		o := r.order(min(step, events-done), time.Hour)
		o.Connections, o.Batch, o.Types = 16, 500, []string{"preload"}
		if _, err := r.append(ctx, o); err != nil {
			return err
		}
	}
	_, err := r.server.quiet(ctx, 30*time.Second)
	return err
}

func (r *rig) close() error {
	var errs []error
	for _, p := range []*part{r.load, r.plainLoop, r.bareFile, r.receiver} {
		if p != nil {
			errs = append(errs, p.close())
		}
	}
	if r.server != nil {
		errs = append(errs, r.server.stop())
	}
	if r.database != nil {
		errs = append(errs, r.database.drop())
	}
	if r.dir != "" {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

// order is a load of so many events (0: any number) for so long.
func (r *rig) order(events int, d time.Duration) loadOrder {
	return loadOrder{URL: r.server.url, Key: string(r.server.key), Tenants: []string{"default"}, Connections: 64, Batch: 100, Bytes: eventBytes,
		Types: []string{"order.paid"}, First: r.next, Nanos: int64(d), Events: int64(events), Receiver: r.receiverURL, Fanout: 1}
}

// append runs a load; an append that was neither acknowledged nor refused fails.
func (r *rig) append(ctx context.Context, o loadOrder) (*partResult, error) {
	var res partResult
	if err := r.load.call(ctx, o, &res); err != nil {
		return nil, err
	}
	r.next = res.Next
	if res.Failed > 0 {
		return nil, fmt.Errorf("%d appends failed, such as: %s %s", res.Failed, res.Failure, r.server.lastWords())
	}
	return &res, nil
}

// groups answers n groups of the receiver that were not used before.
func (r *rig) groups(n int) []int {
	if r.group+n > maxGroups {
		r.group = 0
	}
	all := make([]int, n)
	for i := range all {
		all[i] = r.group
		r.group++
	}
	return all
}

// stats answers what arrived in some groups. Latencies are those since the last call.
func (r *rig) stats(ctx context.Context, groups []int) (receiverStats, error) {
	r.callReceiver.Lock()
	defer r.callReceiver.Unlock()
	var s receiverStats
	return s, r.receiver.call(ctx, receiverOrder{Do: "stats", Groups: groups}, &s)
}

// subscribe makes a subscription of tenant.
func (r *rig) subscribe(ctx context.Context, tenant eventhose.TenantID, s client.NewSubscription) (eventhose.SubscriptionID, error) {
	s.From = "now"
	s.Destination.Type = eventhose.DestinationWebhook
	made, err := r.server.client.Tenant(tenant).CreateSubscription(ctx, s)
	if err != nil {
		return "", fmt.Errorf("subscribe: %w", err)
	}
	return made.ID, nil
}

// to is a subscription that sends some types to a URL.
func to(url string, types ...string) client.NewSubscription {
	return client.NewSubscription{Filter: eventhose.Filter{Types: types}, Destination: eventhose.Destination{URL: url}}
}

// plain runs the plain loop for so long.
func (r *rig) plain(ctx context.Context, d time.Duration) (*side, error) {
	group := r.groups(1)
	var res partResult
	before, err := r.stats(ctx, group)
	if err != nil {
		return nil, err
	}
	o := plainOrder{URL: endpoint(r.receiverURL, group[0]), Workers: plainWorkers, Bytes: eventBytes + envelopeBytes, Nanos: int64(d), First: 1}
	if err := r.plainLoop.call(ctx, o, &res); err != nil {
		return nil, err
	}
	if res.Failed > 0 {
		return nil, fmt.Errorf("%d requests of the plain loop failed, such as: %s", res.Failed, res.Failure)
	}
	after, err := r.stats(ctx, group)
	if err != nil {
		return nil, err
	}
	return &side{perSecond: res.perSecond(), events: res.Events, latency: res.Latency,
		cpu: map[string]int64{"plain-loop": res.CPU, "plain-loop receiver": after.CPU - before.CPU}}, nil
}

// bare runs the bare file for so long.
func (r *rig) bare(ctx context.Context, d time.Duration, batch int) (*side, error) {
	dir := r.dir
	if dir == "" {
		dir = r.b.Dir
	}
	var res partResult
	var o any = bareFileOrder{Dir: dir, Producers: producers, Batch: batch, Bytes: eventBytes, Nanos: int64(d)}
	if r.database != nil {
		o = pgxLoopOrder{URL: r.database.url, Connections: pgxConnections, Batch: batch, Bytes: eventBytes, Nanos: int64(d)}
	}
	if err := r.bareFile.call(ctx, o, &res); err != nil {
		return nil, err
	}
	if res.Failed > 0 {
		return nil, fmt.Errorf("the %s: %s", r.bareFile.name, res.Failure)
	}
	return &side{perSecond: res.perSecond(), events: res.Events, latency: res.Latency, cpu: map[string]int64{r.bareFile.name: res.CPU}}, nil
}

const (
	eventBytes = 1000 // of data
	// envelopeBytes is about what a webhook has beside its data.
	envelopeBytes = 170
	plainWorkers  = 64
	producers     = 64
	// pgxConnections is how many the pgx loop has, as a node has by default.
	pgxConnections = 16
)

// side is one side of one round. CPU is in microseconds.
type side struct {
	perSecond  float64
	events     int64
	latency    *histogram
	cpu        map[string]int64
	fsyncs     int64
	lost       int64
	duplicates int64
	appends    *histogram
	refused    int64
	fsync      *histogram
}

// rounds measures a scenario against its baseline, in turns.
func (b *bench) rounds(ctx context.Context, r *Result, baseline, subject func(context.Context, time.Duration) (*side, error)) error {
	var perSecond, basePerSecond, ratios []float64
	latency, baseLatency := &histogram{}, &histogram{}
	cpu, per := map[string]int64{}, map[string]int64{}
	for round := range b.Rounds {
		b.tell("measuring", round, b.Rounds)
		base, err := baseline(ctx, b.round())
		if err != nil {
			return err
		}
		if base.perSecond == 0 {
			return fmt.Errorf("nothing got through %s in round %d, so nothing can be compared with it", r.Baseline, round+1)
		}
		got, err := subject(ctx, b.round())
		if err != nil {
			return err
		}
		perSecond, basePerSecond = append(perSecond, got.perSecond), append(basePerSecond, base.perSecond)
		ratios = append(ratios, got.perSecond/base.perSecond)
		latency.merge(got.latency)
		baseLatency.merge(base.latency)
		r.Fsyncs += got.fsyncs
		r.Lost += got.lost
		r.Duplicates += got.duplicates
		for _, s := range []*side{base, got} {
			for name, us := range s.cpu {
				cpu[name] += us
				per[name] += s.events
			}
		}
	}
	r.Rounds, r.EventsPerS, r.BaselinePerS, r.Ratio = b.Rounds, median(perSecond), median(basePerSecond), median(ratios)
	r.RatioLow, r.RatioHigh = interval(ratios)
	var against Result
	baseLatency.into(&against)
	latency.into(r)
	r.BaselineP50, r.BaselineP99 = against.P50, against.P99
	r.CPUOf = map[string]float64{}
	for name, us := range cpu {
		r.CPUOf[name] = float64(us) / float64(max(1, per[name]))
	}
	r.CPU = r.CPUOf["server"]
	return nil
}
