package embedded

import (
	"encoding/binary"

	"github.com/eventhose/eventhose"
)

// The keyspace. One prefix byte for each space; tenants, kinds and subscriptions hold no zero byte, so that a zero ends
// them and keys sort by tenant first. Numbers are big-endian, so that they sort as they count.
//
//	01 name                                   what belongs to the whole store: counter, incarnations
//	02 tenant                                 head of a log
//	03 tenant 0 last                          record batch, by its last sequence: the first one at or after a sequence holds it
//	04 tenant 0 scope id                      remembered client id → sequence, digest
//	05 tenant 0 sequence                      kept event of a parked sequence that the log no longer holds, a batch of one
//	06 tenant 0 scope id sequence             further ids: references in a parent's log, kept events
//	07 tenant                                 bytes of kept data
//	08 tenant                                 how far the log is matched
//	09 tenant                                 the log reaches beyond that
//	0a tenant 0 subscription                  lane
//	0b tenant 0 subscription 0 sequence       parked
//	0c tenant 0 sequence subscription         parked, by event
//	0d tenant 0 subscription 0 key            blocked key
//	0e tenant 0 subscription                  the lane has something to do
//	0f tenant 0 subscription 0 ^id ff         attempt, newest first; or a run of them, by the newest
//	10 tenant 0 sequence subscription 0 ^id ff  attempt, by event; sequence 0 for tests
//	11 tenant 0 kind 0 id                     record
//	12 expires 11…                            record, by when it expires
//	13 03…                                    record batch that still has erased bytes in older files
//	14 tenant 0 block subscription 0 ^id ff   run of attempts, by block of 64 sequences
//	15 tenant 0 ^id ff subscription           attempt or run, by time: newest first over all subscriptions
const (
	spaceStore    = 0x01
	spaceHead     = 0x02
	spaceBatch    = 0x03
	spaceID       = 0x04
	spaceKept     = 0x05
	spaceFurther  = 0x06
	spaceKeptSize = 0x07
	spaceMatched  = 0x08
	spaceTail     = 0x09
	spaceLane     = 0x0a
	spaceParked   = 0x0b
	spaceParkedAt = 0x0c
	spaceBlocked  = 0x0d
	spaceWork     = 0x0e
	spaceAttempt  = 0x0f
	spaceTried    = 0x10
	spaceRecord   = 0x11
	spaceExpiry   = 0x12
	spaceScrub    = 0x13
	spaceTriedRun = 0x14
	spaceRecent   = 0x15
)

var (
	keyCounter      = []byte{spaceStore, 'c'}
	keyIncarnations = []byte{spaceStore, 'i'}
	keyOpens        = []byte{spaceStore, 'o'}
)

type tenantID = eventhose.TenantID
type subscriptionID = eventhose.SubscriptionID
type sequence = eventhose.Sequence

// tenantKey is a key of a space with one row for each tenant.
func tenantKey(space byte, tenant tenantID) []byte {
	return append(append(make([]byte, 0, 1+len(tenant)), space), tenant...)
}

// prefix begins all keys of a tenant in a space of many rows.
func prefix(space byte, tenant tenantID, room int) []byte {
	k := make([]byte, 0, 2+len(tenant)+room)
	k = append(k, space)
	k = append(k, tenant...)
	return append(k, 0)
}

func seqKey(space byte, tenant tenantID, seq sequence) []byte {
	return binary.BigEndian.AppendUint64(prefix(space, tenant, 8), uint64(seq))
}

func batchKey(tenant tenantID, last sequence) []byte { return seqKey(spaceBatch, tenant, last) }

func idKey(tenant tenantID, scope, id string) []byte {
	return appendIDKey(make([]byte, 0, idKeySize(tenant, scope, id)), tenant, scope, id)
}

func appendIDKey(k []byte, tenant tenantID, scope, id string) []byte {
	k = append(append(append(k, spaceID), tenant...), 0)
	k = binary.AppendUvarint(k, uint64(len(scope)))
	k = append(k, scope...)
	return append(k, id...)
}

// idKeySize is how many bytes appendIDKey writes.
func idKeySize(tenant tenantID, scope, id string) int {
	n := 3 + len(tenant) + len(scope) + len(id)
	for l := len(scope); l >= 0x80; l >>= 7 {
		n++
	}
	return n
}

// furtherPrefix begins the rows of one further id; the sequence follows.
func furtherPrefix(tenant tenantID, scope, id string) []byte {
	k := prefix(spaceFurther, tenant, 12+len(scope)+len(id))
	k = binary.AppendUvarint(k, uint64(len(scope)))
	k = append(k, scope...)
	k = binary.AppendUvarint(k, uint64(len(id)))
	return append(k, id...)
}

func furtherKey(tenant tenantID, scope, id string, seq sequence) []byte {
	return binary.BigEndian.AppendUint64(furtherPrefix(tenant, scope, id), uint64(seq))
}

func laneKey(space byte, tenant tenantID, sub subscriptionID) []byte {
	return append(prefix(space, tenant, len(sub)), sub...)
}

// lanePrefix begins all rows of one lane in a space.
func lanePrefix(space byte, tenant tenantID, sub subscriptionID, room int) []byte {
	return append(append(prefix(space, tenant, len(sub)+1+room), sub...), 0)
}

func parkedKey(tenant tenantID, sub subscriptionID, seq sequence) []byte {
	return binary.BigEndian.AppendUint64(lanePrefix(spaceParked, tenant, sub, 8), uint64(seq))
}

func parkedAtKey(tenant tenantID, seq sequence, sub subscriptionID) []byte {
	return append(seqKey(spaceParkedAt, tenant, seq), sub...)
}

func blockedKey(tenant tenantID, sub subscriptionID, key string) []byte {
	return append(lanePrefix(spaceBlocked, tenant, sub, len(key)), key...)
}

// appendNewestFirst writes an id so that greater ids sort before smaller ones.
func appendNewestFirst(k []byte, id string) []byte {
	for i := range len(id) {
		k = append(k, ^id[i])
	}
	return append(k, 0xff)
}

// newestFirstID reads what appendNewestFirst wrote.
func newestFirstID(b []byte) (string, bool) {
	if len(b) == 0 || b[len(b)-1] != 0xff {
		return "", false
	}
	id := make([]byte, len(b)-1)
	for i := range id {
		id[i] = ^b[i]
	}
	return string(id), true
}

func attemptKey(tenant tenantID, sub subscriptionID, id string) []byte {
	return appendNewestFirst(lanePrefix(spaceAttempt, tenant, sub, len(id)+1), id)
}

func recentKey(tenant tenantID, id string, sub subscriptionID) []byte {
	return append(appendNewestFirst(prefix(spaceRecent, tenant, len(id)+1+len(sub)), id), sub...)
}

// triedPrefix begins the attempts of one event, or with sub of one event at one subscription.
func triedPrefix(tenant tenantID, seq sequence, sub subscriptionID) []byte {
	k := seqKey(spaceTried, tenant, seq)
	if sub == "" {
		return k
	}
	return append(append(k, sub...), 0)
}

func triedKey(tenant tenantID, seq sequence, sub subscriptionID, id string) []byte {
	return appendNewestFirst(triedPrefix(tenant, seq, sub), id)
}

// kindPrefix begins the records of one kind.
func kindPrefix(tenant tenantID, kind string, room int) []byte {
	return append(append(prefix(spaceRecord, tenant, len(kind)+1+room), kind...), 0)
}

func recordKey(tenant tenantID, kind, id string) []byte {
	return append(kindPrefix(tenant, kind, len(id)), id...)
}

// end answers the first key after all that begin with a prefix.
func end(prefix []byte) []byte {
	e := append([]byte(nil), prefix...)
	for i := len(e) - 1; i >= 0; i-- {
		if e[i]++; e[i] != 0 {
			return e[:i+1]
		}
	}
	return nil
}

// seqAt reads the sequence that stands in a key after a prefix.
func seqAt(key []byte, offset int) (sequence, bool) {
	if len(key) < offset+8 {
		return 0, false
	}
	return sequence(binary.BigEndian.Uint64(key[offset:])), true
}
