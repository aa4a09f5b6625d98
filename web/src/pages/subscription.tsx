import { useState } from "preact/hooks"
import { change, get, useGet } from "../api"
import { Attempts } from "../parts/attempts"
import { called, condition, pull, troubled, where } from "../parts/condition"
import { Chart } from "../parts/chart"
import { Code } from "../parts/data"
import { Ask } from "../parts/dialog"
import { Mend, Rotate } from "../parts/mend"
import { More, usePages } from "../parts/more"
import { Act, say } from "../parts/notices"
import { ParkedRows } from "../parts/parkedrows"
import { Replay, Replays } from "../parts/replay"
import { Empty, Failed, Figure, State, Tabs, Time, Waiting, Why } from "../parts/small"
import { LaneLine } from "../parts/tape"
import { Trouble } from "../parts/trouble"
import { count, share, some, took, when } from "../parts/words"
import { api, go, link, params, portal, query, setQuery } from "../route"
import { limited, may } from "../session"
import type { Attempt, Overview, Parked, Point, Subscription as Sub } from "../wire"
import { Settings } from "./settings"

/** One lane: where it stands, what it tried, what is parked, how it is set, and everything that can be done about it. */
export function Subscription({ at: [id = ""] }: { at: string[] }) {
  const of = api("/subscriptions/" + encodeURIComponent(id))
  const got = useGet<Sub>(of, 3000)
  const measured = useGet<{ data: Point[] }>(limited() ? null : api("/metrics" + params({ from: "1h", step: "1m", subscription: id })), 5000)
  const o = useGet<Overview>(limited() ? null : api("/overview"), 5000).data
  const tab = query.value.get("tab") ?? "attempts"
  const [replaying, replay] = useState(false)
  if (got.error && !got.data) return <Failed error={got.error} again={got.reload} />
  const s = got.data
  if (!s) return <Waiting what="Looking for the subscription" />
  const points = measured.data?.data ?? []
  const sum = (pick: (p: Point) => number) => points.reduce((n, p) => n + pick(p), 0)
  const taken = sum((p) => p.taken), failed = sum((p) => p.failed)
  const busiest = points.filter((p) => p.attempts)
  const p95 = busiest.length ? Math.max(...busiest.slice(-15).map((p) => p.duration.p95_ms)) : 0
  const l = s.status, c = condition(s), parked = l ? l.dead + l.retrying + l.waiting + (l.leased ?? 0) : 0
  const manage = may("manage", "manage")
  const all = link("/subscriptions"), own = link("/subscriptions/" + s.id)
  const batched = (s.batch?.max_events ?? 0) > 1
  const tabs: [string, string][] = [["attempts", "Attempts"], ["parked", `Parked${parked ? " " + count(parked) : ""}`], ...(batched ? ([["batches", "Batches"]] as [string, string][]) : []), ["settings", "Settings"], ...(may("manage", "secrets") && !pull(s) ? ([["secret", "Secret"]] as [string, string][]) : [])]
  return (
    <>
      <p class="crumb">
        <a href={link("/subscriptions")}>Subscriptions</a>
      </p>
      <header>
        <h1>{called(s)}</h1>
        <State tone={c.tone}>{c.word}</State>
        <span class="id soft break">{s.id}</span>
        <span class="end row">
          {may("manage", "test") && !pull(s) && (
            <Act label="Send a test" does={async () => tested(await change<Attempt>("POST", of + "/test"), own)} />
          )}
          {manage && s.state === "active" && <Act label="Pause" does={() => change("POST", of + "/pause").then(got.reload)} done="It is held. Events wait in the log." />}
          {manage && s.state !== "active" && <Act kind="do" label="Resume" does={() => change("POST", of + "/resume").then(got.reload)} done="It goes on from its cursor." />}
          {may("manage", "replay") && (
            <button type="button" onClick={() => replay(true)}>
              Replay…
            </button>
          )}
        </span>
      </header>
      <p class="soft break" style={{ marginTop: "-12px" }}>
        {pull(s) ? (s.source ? <>The inbox of {portal ? s.source : <a href={link("/sources/" + s.source)}>{s.source}</a>}</> : "Workers ask for its events") : where(s)} · {wants(s)}
      </p>
      <section class="figures" aria-label="Now">
        <Figure value={l ? count(l.lag) : "–"} of="places behind" tone={l && l.lag > 1000 ? "warn" : ""} />
        <Figure value={l ? count(l.in_flight + (l.leased ?? 0)) : "–"} of={pull(s) ? "in workers' hands" : "in flight"} />
        <Figure value={taken + failed ? share(taken / (taken + failed)) : "–"} of="of tries taken, last hour" tone={taken + failed && taken / (taken + failed) < 0.9 ? "bad" : ""} />
        <Figure value={p95 ? took(p95) : "–"} of="p95 of answers, last 15 min" tone={c.word === "slow" ? "warn" : ""} />
        <Figure value={count(l?.dead ?? 0)} of="dead" tone={l?.dead ? "bad" : ""} href={link(`/subscriptions/${s.id}?tab=parked&state=dead`)} />
        <Figure value={l?.last_success ? <Time at={l.last_success} since /> : "–"} of={l?.circuit === "open" ? "last success · circuit open" : "last success"} />
      </section>
      {l && <LaneLine lane={l} tone={c.tone} head={o?.head.last ?? 0} />}
      {l?.circuit === "open" && l.next && <p class="soft">It is probed with one event at a time; the next probe <Time at={l.next} since />. What waits is not charged with tries.</p>}
      {s.state === "paused" && <p class="soft">Paused by a person{l ? `; ${some(l.lag, "place waits", "places wait")} in the log` : ""}.</p>}
      {troubled(s) && (
        <div style={{ marginTop: "16px" }}>
          <Trouble sub={s} done={got.reload} />
        </div>
      )}
      <Replays sub={s} />
      {taken + failed > 0 && (
        <div class="charts" style={{ margin: "16px 0" }}>
          <Chart title="Tries a minute" times={points.map((p) => p.time)} show={count} lines={[{ label: "taken", color: "--water", values: points.map((p) => p.taken), fill: true }, { label: "failed", color: "--bad", values: points.map((p) => p.failed) }]} />
          <Chart title="How long its receiver takes" times={points.map((p) => p.time)} show={took} lines={[{ label: "p50", color: "--water", values: points.map((p) => (p.attempts ? p.duration.p50_ms : null)) }, { label: "p95", color: "--warn", values: points.map((p) => (p.attempts ? p.duration.p95_ms : null)), dash: [4, 3] }]} />
        </div>
      )}
      <Tabs names={tabs} at={tab} to={(t) => setQuery({ tab: t === "attempts" ? "" : t, state: "" })} />
      {tab === "attempts" && <Tried sub={s} of={of} />}
      {tab === "parked" && <SetAside sub={s} of={of} done={got.reload} />}
      {tab === "batches" && <Batches of={of} />}
      {tab === "settings" && <Settings key={s.updated} sub={s} done={got.reload} gone={() => go(all)} />}
      {tab === "secret" && <Secret sub={s} of={of} done={got.reload} />}
      {replaying && <Replay sub={s} close={() => replay(false)} done={got.reload} />}
    </>
  )
}

function wants(s: Sub): string {
  const f = s.filter
  const types = f?.types?.length ? f.types.join(", ") : "all types"
  return [types, f?.expression && "if " + f.expression, f?.keys?.length && some(f.keys.length, "key")].filter(Boolean).join(" · ")
}

function tested(t: Attempt, own: string) {
  const to = `${own}/attempts/${t.id}`
  return (
    <>
      The test was {t.outcome === "taken" ? `taken with ${t.status}` : `not taken: ${t.message || t.reason}`}. <a href={to}>See it</a>
    </>
  )
}

function Tried({ sub, of }: { sub: Sub; of: string }) {
  const list = usePages<Attempt>(of + "/attempts?limit=50")
  if (list.error) return <Failed error={list.error} again={list.reload} />
  return (
    <>
      {list.rows.length > 0 && <Attempts rows={list.rows} />}
      <More of={list} name="Older">
        <button type="button" onClick={list.reload}>
          Look again
        </button>
      </More>
      {list.next === null && !list.rows.length && <Empty title="Nothing was tried yet">{pull(sub) ? "Attempts of workers appear here when they ask for events." : "An attempt appears here when an event is due. Send a test to see one now."}</Empty>}
    </>
  )
}

const parkedStates: [string, string][] = [["", "all"], ["retrying", "retrying: they have a due time"], ["waiting", "waiting: behind a parked event of their key"], ["leased", "leased: in a worker's hands"], ["dead", "dead: they need a person"]]

function SetAside({ sub, of, done }: { sub: Sub; of: string; done: () => void }) {
  const state = query.value.get("state") ?? ""
  const list = usePages<Parked>(of + "/parked" + params({ state, limit: 100 }))
  const after = () => (list.reload(), done())
  return (
    <>
      <div class="filters">
        <label>
          State
          <select value={state} onChange={(e) => setQuery({ state: e.currentTarget.value })}>
            {parkedStates.map(([id, words]) => (
              <option key={id} value={id}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <Mend sub={sub} done={after} />
        {(sub.status?.dead ?? 0) > 0 && may("manage", "replay") && <DiscardAll sub={sub} of={of} done={after} />}
      </div>
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.rows.length > 0 && <ParkedRows rows={list.rows.map((p) => ({ ...p, subscription: sub.id }))} done={after} />}
      <More of={list} />
      {list.next === null && !list.rows.length && <Empty title="Nothing is set aside">What fails is parked here, so that the cursor can go on, and is tried again until it is taken or dead.</Empty>}
    </>
  )
}

function DiscardAll({ sub, of, done }: { sub: Sub; of: string; done: () => void }) {
  const [asking, ask] = useState(false)
  const n = sub.status?.dead ?? 0
  return (
    <>
      <button type="button" class="danger" onClick={() => ask(true)}>
        Discard all dead…
      </button>
      {asking && (
        <Ask title={`Give up ${some(n, "dead event")}`} button="Discard" danger close={() => ask(false)} does={() => change<{ count: number }>("POST", of + "/parked/discard").then((a) => (say(`${some(a.count, "event was", "events were")} given up.`), done()))}>
          <p class="soft">{called(sub)} will not get them, unless they are replayed. They stay in the log for everybody else.</p>
        </Ask>
      )}
    </>
  )
}

interface Batch {
  id: string
  events: number
  first_sequence: number
  last_sequence: number
  state: string
  attempts: Attempt[]
}

function Batches({ of }: { of: string }) {
  const list = usePages<Batch>(of + "/batches?limit=50")
  if (list.error) return <Failed error={list.error} again={list.reload} />
  const tone = (s: string) => (s === "taken" ? "" : s === "dead" || s === "gone" ? "b" : "w")
  return (
    <>
      {list.rows.length > 0 && (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>First tried</th>
                <th>Batch</th>
                <th>State</th>
                <th class="num">Events</th>
                <th class="wide-only">Sequences</th>
                <th>Tries</th>
              </tr>
            </thead>
            <tbody>
              {list.rows.map((b) => (
                <tr key={b.id}>
                  <td class="soft">
                    <Time at={b.attempts.at(-1)?.started} />
                  </td>
                  <td class="mono">{b.id}</td>
                  <td>
                    <State tone={tone(b.state)}>{b.state}</State>
                  </td>
                  <td class="num">{count(b.events)}</td>
                  <td class="soft wide-only">
                    {count(b.first_sequence)} – {count(b.last_sequence)}
                  </td>
                  <td>
                    <span class="row">
                      {b.attempts.slice(0, 8).map((t) => (
                        <a key={t.id} data-row class={"mono ref " + (t.outcome === "taken" ? "ok" : "bad")} href={link(`/subscriptions/${of.split("/").pop()}/attempts/${t.id}`)} title={when(t.started)}>
                          {t.status || t.reason || t.outcome}
                        </a>
                      ))}
                    </span>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <More of={list} name="Older" />
      {list.next === null && !list.rows.length && <Empty title="No batch was sent yet" />}
    </>
  )
}

function Secret({ sub, of, done }: { sub: Sub; of: string; done: () => void }) {
  const [shown, show] = useState<{ secret: string; secrets: { secret: string; until?: string }[] }>()
  const [rotating, rotate] = useState(false)
  return (
    <>
      <p class="soft">
        Every request is signed as <a class="ref" href="https://www.standardwebhooks.com/" target="_blank" rel="noreferrer">Standard Webhooks</a> says: <code>webhook-id</code>, <code>webhook-timestamp</code> and <code>webhook-signature</code>
        {sub.destination?.signature === "v1a" ? " with Ed25519; the receiver needs the public key only" : " with HMAC-SHA256 and this secret"}. The receiver checks it over the bytes of the body as they came.
      </p>
      {sub.public_key && <Code text={sub.public_key} />}
      <p class="row">
        <Act label={shown ? "Hide" : "Reveal"} does={async () => void (shown ? show(undefined) : show(await get(of + "/secret")))} />
        <button type="button" class="do" onClick={() => rotate(true)}>
          Rotate…
        </button>
      </p>
      {shown?.secrets.map((x, i) => (
        <div key={x.secret} style={{ marginTop: "8px" }}>
          <Code text={x.secret} />
          <span class="soft">{i === 0 ? "The current one." : x.until ? <>Goes on signing <Time at={x.until} since />.</> : ""}</span>
        </div>
      ))}
      <h2>Is a signature right?</h2>
      <Code text={`eventhose verify --secret whsec_… --headers headers.txt < body.json`} />
      {rotating && <Rotate sub={sub} close={() => rotate(false)} done={() => (show(undefined), done())} />}
      
      <Why tone="p" title="Whoever has this secret can make requests that look like ours">
        If it has leaked, rotate it with a short overlap.
      </Why>
    </>
  )
}

