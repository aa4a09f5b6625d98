// Package eventhose is the vocabulary of Eventhose: one durable, ordered event log per tenant, with every way in
// and every way out.
//
// It holds the words that every other package speaks (Event, Sequence, Cursor, Subscription, Attempt, Parked), what
// makes each of them valid, the closed set of error codes, and the waist: Appender and Reader. It imports nothing but
// the standard library and keeps no state, so everything in it may be used concurrently unless it says otherwise.
//
// JSON tags on these types are the public HTTP API's.
package eventhose
