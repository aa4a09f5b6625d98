import { useGet, type List } from "../api"
import { Chart } from "../parts/chart"
import { troubled } from "../parts/condition"
import { Find } from "../parts/find"
import { Lanes } from "../parts/lanes"
import { Empty, Failed, Figure, Waiting } from "../parts/small"
import { Tape } from "../parts/tape"
import { Trouble } from "../parts/trouble"
import { count, rate, share, span, took } from "../parts/words"
import { api, go, link, params, portal, query, setQuery, tenant } from "../route"
import { may } from "../session"
import type { Overview as Seen, Point, Subscription } from "../wire"

/** How far back the page looks, and how much time a column stands for. */
export const spans: [id: string, words: string, step: string][] = [
  ["1h", "last hour", "1m"],
  ["6h", "last 6 hours", "6m"],
  ["24h", "last day", "24m"],
  ["168h", "last 7 days", "168m"],
]

export function Span() {
  return (
    <select aria-label="How far back" value={query.value.get("from") ?? "1h"} onChange={(e) => setQuery({ from: e.currentTarget.value === "1h" ? "" : e.currentTarget.value })}>
      {spans.map(([id, words]) => (
        <option key={id} value={id}>
          {words}
        </option>
      ))}
    </select>
  )
}

/** A label of a step: 1m is "one minute a column". */
export const column: Record<string, string> = { "1m": "one minute", "6m": "6 minutes", "24m": "24 minutes", "168m": "2 h 48 min" }

export function Overview() {
  const [from, , step] = spans.find(([id]) => id === query.value.get("from")) ?? spans[0]!
  const seen = useGet<Seen>(api("/overview"), 2000)
  const points = useGet<{ data: Point[] }>(api("/metrics" + params({ from, step })), 5000).data?.data ?? []
  const subs = useGet<List<Subscription>>(api("/subscriptions?status=true&metrics=1h&limit=100"), 5000)
  const o = seen.data
  if (seen.error && !o) return <Failed error={seen.error} again={seen.reload} />
  if (!o) return <Waiting what="Looking at the log" />
  const list = subs.data?.data ?? []
  const worst = [...list].sort((a, b) => Number(troubled(b)) - Number(troubled(a)) || (b.status?.lag ?? 0) - (a.status?.lag ?? 0))
  const trouble = list.filter(troubled)
  const times = points.map((p) => p.time)
  const perSecond = (pick: (p: Point) => number) => points.map((p) => pick(p) / minutes(step) / 60)
  const age = o.oldest ? span(o.oldest.age) : "none"
  return (
    <>
      <header>
        <h1>Overview</h1>
        <span class="soft row">
          {tenant.value} · <Span />
        </span>
        <Find />
      </header>
      <section class="figures" aria-label="Now">
        <Figure value={rate(o.events_per_s)} unit="/s" of="events in" href={portal && !may("read", "data") ? undefined : link("/live")} />
        <Figure value={rate(o.deliveries_per_s)} unit="/s" of="deliveries" />
        <Figure value={o.first_try === null ? "–" : share(o.first_try)} of="taken at first try" tone={o.first_try !== null && o.first_try < 0.95 ? "warn" : ""} />
        <Figure value={o.lag.p50_ms ? took(o.lag.p50_ms) : "–"} of={o.lag.p99_ms ? `p50 lag · p99 ${took(o.lag.p99_ms)}` : "p50 lag"} />
        <Figure value={age} of="oldest event not taken" tone={o.oldest && /min|h|d/.test(age) ? "warn" : ""} href={o.oldest ? link("/subscriptions/" + o.oldest.subscription) : undefined} />
        <Figure value={count(o.subscriptions.failing + o.subscriptions.disabled)} of={`failing of ${count(o.subscriptions.total)}`} tone={o.subscriptions.failing + o.subscriptions.disabled ? "bad" : ""} href={link("/subscriptions" + (o.subscriptions.failing ? "?state=failing" : ""))} />
      </section>
      {o.head.last === 0 && (
        <Empty title="The log is empty">
          {portal ? "Nothing has happened yet." : (
            <>
              Nothing was appended to {tenant.value} yet. <a class="ref" href={link("/start")}>First steps</a> sends a first event and shows it arrive.
            </>
          )}
        </Empty>
      )}
      <h2>
        The log{" "}
        <span class="soft">
          sequence {count(o.head.last)} · {column[step]} a column · failed tries below the line
        </span>
      </h2>
      <Tape points={points} pick={(since, until) => go(link("/events" + params({ since, until })))} />
      {trouble.length > 0 && (
        <>
          <h2>
            Needs a person <span class="soft">{trouble.length > 5 ? `5 of ${trouble.length}` : ""}</span>
          </h2>
          {trouble.slice(0, 5).map((s) => (
            <Trouble key={s.id} sub={s} done={() => (subs.reload(), seen.reload())} />
          ))}
        </>
      )}
      <h2>
        Lanes <span class="soft">where each subscription is in the log; red: parked behind its cursor</span>
      </h2>
      {subs.data && !list.length ? (
        <Empty title="Nobody has subscribed">
          Events wait in the log until somebody reads them.{" "}
          {may("manage", "manage") && (
            <a class="ref" href={link("/subscriptions/new")}>
              Subscribe a destination
            </a>
          )}
        </Empty>
      ) : (
        <Lanes subs={worst.slice(0, 20)} head={o.head.last} />
      )}
      {list.length > 20 && (
        <p class="more">
          <a class="ref" href={link("/subscriptions")}>
            All {count(o.subscriptions.total)} subscriptions
          </a>
        </p>
      )}
      <h2>Over time</h2>
      <div class="charts">
        <Chart title="Events in and deliveries, a second" times={times} show={rate} lines={[{ label: "events", color: "--water", values: perSecond((p) => p.events), fill: true }, { label: "taken", color: "--ok", values: perSecond((p) => p.taken) }, { label: "failed", color: "--bad", values: perSecond((p) => p.failed) }]} />
        <Chart title="From append to delivery" times={times} show={took} lines={[{ label: "p50", color: "--water", values: points.map((p) => (p.first_taken ? p.lag.p50_ms : null)) }, { label: "p99", color: "--warn", values: points.map((p) => (p.first_taken ? p.lag.p99_ms : null)), dash: [4, 3] }]} />
        <Chart title="How long receivers take" times={times} show={took} lines={[{ label: "p50", color: "--water", values: points.map((p) => (p.attempts ? p.duration.p50_ms : null)) }, { label: "p95", color: "--warn", values: points.map((p) => (p.attempts ? p.duration.p95_ms : null)), dash: [4, 3] }]} />
      </div>
    </>
  )
}

const minutes = (step: string) => Number(step.replace("m", ""))
