// How a subscription is, in a word and a colour.
import type { Subscription } from "../wire"
import type { Tone } from "./small"
import { millis } from "./words"

export interface Condition {
  word: string
  tone: Tone
}

export const pull = (s: Subscription) => !s.destination?.type

/** What a subscription is called where its name would be. */
export const called = (s: Subscription) => s.name || s.id

/** Where it hands events over, for people. */
export function where(s: Subscription): string {
  if (pull(s)) return s.source ? "inbox" : "pull"
  return s.destination!.url
}

export function condition(s: Subscription): Condition {
  const l = s.status
  if (s.state === "paused") return { word: "paused", tone: "p" }
  if (s.state === "disabled") return { word: "disabled", tone: "b" }
  if (!l) return { word: "active", tone: "" }
  if (l.circuit === "open") return { word: "failing", tone: "b" }
  if (slow(s)) return { word: "slow", tone: "w" }
  if (l.dead) return { word: "some dead", tone: "w" }
  if (l.retrying) return { word: "retrying", tone: "w" }
  if (l.replays?.length) return { word: "replaying", tone: "" }
  if (pull(s)) return { word: l.leased ? "working" : l.lag ? "waiting for workers" : "idle", tone: l.lag && !l.leased ? "w" : "" }
  if (s.batch && (s.batch.max_events ?? 0) > 1) return { word: `batches of ${s.batch.max_events}`, tone: "" }
  return { word: "flowing", tone: "" }
}

/** Whether its answers take most of its time-out. */
export function slow(s: Subscription): boolean {
  const p95 = s.metrics?.duration.p95_ms ?? 0
  return p95 > 0.6 * (millis(s.retry.timeout) || 15_000)
}

/** Whether somebody should look at it. */
export function troubled(s: Subscription): boolean {
  return s.state === "disabled" || s.status?.circuit === "open" || (s.status?.dead ?? 0) > 0 || slow(s)
}
