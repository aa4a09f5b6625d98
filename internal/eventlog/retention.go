package eventlog

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/eventhose/eventhose"
	"github.com/eventhose/eventhose/internal/store"
)

// defaultDeadBytes is the quota of parked events that the log itself no longer holds.
const defaultDeadBytes = 64 << 20

// ParkedLost is the type of the system event that names parked events whose data retention has taken because the
// quota was full.
const ParkedLost = "eventhose.parked.lost"

// RunRetention applies every tenant's retention now and then each interval, and that of small logs twelve times as often, until
// ctx ends. Failures are logged and tried again at the next turn.
func (l *Log) RunRetention(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var soon <-chan time.Time // only while there is a small log: nobody else pays for them
	turn := l.Retain
	for {
		if turn != nil {
			if err := turn(ctx); err != nil && ctx.Err() == nil {
				l.logger.Error("retention failed", "error", err)
			}
		}
		if soon == nil && l.small.any() {
			soon = time.After(interval / 12)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			turn = l.Retain
		case <-soon:
			soon, turn = nil, l.retainSmall
		case <-l.small.noted:
			turn = nil
		}
	}
}

// Retain applies every tenant's retention once. It goes on past tenants for which it fails, and answers what failed.
func (l *Log) Retain(ctx context.Context) error {
	var failed []error // one tenant's trouble keeps no other's log from being trimmed
	for after := eventhose.TenantID(""); ; {
		tenants, err := l.tenants.Tenants(ctx, after, 100)
		if err != nil {
			return wrap(err, "list tenants")
		}
		for _, t := range tenants {
			after = t.ID
			if !bounded(t) || !l.owns(t.ID) {
				continue
			}
			if isSmall(t) {
				l.small.add(t.ID)
			}
			if err := l.retain(ctx, t); err != nil {
				if ctx.Err() != nil {
					return err
				}
				if len(failed) < 10 {
					failed = append(failed, err)
				}
			}
		}
		if len(tenants) < 100 {
			return errors.Join(failed...)
		}
	}
}

func (l *Log) retain(ctx context.Context, t eventhose.Tenant) error {
	trim := store.Trim{Bytes: t.Retention.Bytes, Keep: t.Retention.DeadBytes}
	if trim.Keep == 0 {
		trim.Keep = defaultDeadBytes
	}
	if t.Retention.Age > 0 {
		trim.Before = time.Now().Add(-time.Duration(t.Retention.Age))
	}
	var untold error
	for {
		done, err := l.store.Trim(ctx, t.ID, trim)
		if done.Removed > 0 {
			l.logger.Info("retention removed events", "tenant", t.ID, "events", done.Removed, "bytes", done.Bytes, "first", done.First)
		}
		if len(done.Lost) > 0 && l.lost != nil {
			l.lost(t.ID, done.Lost)
		}
		if err != nil || len(done.Over) == 0 || untold != nil {
			return errors.Join(wrap(err, "trim the log of tenant "+string(t.ID)), untold)
		}
		if trim.Lose = done.Over; ctx.Err() != nil {
			return ctx.Err()
		}
		if untold = l.tellLost(ctx, t.ID, done.Over); untold != nil {
			// What cannot be told of stays; the log is trimmed all the same, as it may be for want of room that nothing can be told.
			trim.Lose, trim.Keep = nil, math.MaxInt64
		}
	}
}

// tellLost tells of parked events before they are lost. Telling again, after a crash, tells nothing new.
func (l *Log) tellLost(ctx context.Context, tenant eventhose.TenantID, all []store.LostParked) error {
	const named = 1000 // in one event
	for some := range slices.Chunk(all, named) {
		data := struct {
			Count  int                `json:"count"`
			Parked []store.LostParked `json:"parked"`
		}{len(some), some}
		body, err := json.Marshal(data)
		if err != nil {
			return err
		}
		// It is named by what it tells.
		sum := sha256.Sum256(body)
		_, err = l.append(ctx, tenant, []eventhose.Event{{ID: "lost_" + eventhose.IDText([16]byte(sum[:16])), Type: ParkedLost, Data: body}})
		if eventhose.CodeOf(err) == eventhose.CodeConflict { // somebody has given another event this name
			err = l.AppendSystem(ctx, tenant, ParkedLost, body)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
