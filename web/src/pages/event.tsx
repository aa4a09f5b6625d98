import { useEffect, useState } from "preact/hooks"
import { change, Problem, text, useGet, type List } from "../api"
import { quoted } from "../parts/command"
import { called } from "../parts/condition"
import { Code, Copy, decoded, Tree } from "../parts/data"
import { Ask } from "../parts/dialog"
import { attemptLink, subscriptionLink } from "../parts/mend"
import { Act, say } from "../parts/notices"
import { member } from "../parts/raw"
import { Empty, Failed, Tabs, Time, Waiting, type Tone } from "../parts/small"
import { bytes, count, exactly, millis, some, span, took, when } from "../parts/words"
import { useSource } from "../parts/scope"
import { api, link, params, portal, query, setQuery, tenant } from "../route"
import { limited, may } from "../session"
import type { Attempt, Delivery, EventStatus, Subscription } from "../wire"

const fates: Record<Delivery["state"], [string, Tone]> = {
  pending: ["not sent yet", "p"],
  delivered: ["taken", ""],
  retrying: ["will be tried again", "w"],
  waiting: ["waits behind its key", "w"],
  leased: ["in a worker's hands", ""],
  dead: ["dead: needs a person", "b"],
}

/** One event: what it is, and what became of it at every subscription. */
export function Event({ at: [id = ""] }: { at: string[] }) {
  const source = useSource(id, query.value.get("source") ?? "", Number(query.value.get("sequence") ?? 0))
  const path = source === undefined ? undefined : api(`/events/${encodeURIComponent(id)}` + params({ source }))
  const [got, set] = useState<{ text: string; event: EventStatus }>()
  const [error, fail] = useState<Problem>()
  const [turn, again] = useState(0)
  const [sending, send] = useState(false)
  const subs = useGet<List<Subscription>>(api("/subscriptions?limit=1000")).data?.data ?? []
  useEffect(() => {
    if (path === undefined) return
    const stop = new AbortController()
    let busy = false
    const ask = () => {
      busy = true
      void text(path, stop.signal)
        .then((t) => stop.signal.aborted || (set({ text: t, event: JSON.parse(t) }), fail(undefined)))
        .catch((e) => stop.signal.aborted || fail(e))
        .finally(() => (busy = false))
    }
    ask()
    const clock = setInterval(() => document.hidden || busy || ask(), 3000)
    return () => {
      stop.abort()
      clearInterval(clock)
    }
  }, [path, turn])
  const reload = () => again((n) => n + 1)
  if (error?.status === 410)
    return (
      <Empty title="The data was erased">
        {error.message}. Its place in the log stays, so that no reader sees a gap.{" "}
        {!limited() && (
          <a class="ref" href={link("/events")}>
            All events
          </a>
        )}
      </Empty>
    )
  if (error && !got) return <Failed error={error} again={reload} />
  if (!got) return <Waiting what="Looking for the event" />
  const { event: e } = got
  const open = e.deliveries.filter((d) => d.state !== "delivered").length
  const raw = member(got.text, "data")
  const later = e.deliveries.length - open
  return (
    <>
      <p class="crumb">
        {limited() ? <a href={link("/subscriptions")}>Subscriptions</a> : <><a href={link("/events")}>Events</a> · <a href={link("/events" + params({ types: e.type }))}>{e.type}</a></>}
      </p>
      <header>
        <h1>{e.type}</h1>
        <span class="id soft break">{e.id}</span>
        <span class="end row">
          <Copy label="Copy as curl" text={() => curl(e, raw)} />
          {may("manage", "replay") && !limited() && e.deliveries.length > 0 && (
            <button type="button" class="do" data-act="r" onClick={() => send(true)}>
              Send again…
            </button>
          )}
        </span>
      </header>
      <div class="two">
        <section>
          <Facts e={e} size={raw === undefined ? (e.data_base64?.length ?? 0) * 0.75 : new Blob([raw]).size} />
          <Data e={e} raw={raw} />
          {may("manage") && !e.erased && (
            <p class="more">
              <Erase e={e} path={path!} done={reload} />
            </p>
          )}
        </section>
        <section>
          <h2 style={{ marginTop: 0 }}>
            What became of it <span class="soft">{e.deliveries.length ? `${some(e.deliveries.length, "subscription wants", "subscriptions want")} it` + (open ? ` · ${count(open)} ${open === 1 ? "has" : "have"} not got it yet` : "") : ""}</span>
          </h2>
          {e.deliveries.map((d) => (
            <Lane key={d.subscription} e={e} d={d} sub={subs.find((s) => s.id === d.subscription)} done={reload} />
          ))}
          {!e.deliveries.length && <Empty title="No subscription wants it">No filter lets it through. It stays in the log and can be read there.</Empty>}
        </section>
      </div>
      {sending && <SendAgain e={e} subs={subs} later={later} close={() => send(false)} done={reload} />}
    </>
  )
}

function Facts({ e, size }: { e: EventStatus; size: number }) {
  return (
    <dl>
      <dt>Sequence</dt>
      <dd>{count(e.sequence)}</dd>
      {e.key && (
        <>
          <dt>Key</dt>
          <dd>
            {limited() ? (
              <span class="id">{e.key}</span>
            ) : (
              <a class="id" href={link("/events" + params({ keys: e.key }))}>
                {e.key}
              </a>
            )}
          </dd>
        </>
      )}
      <dt>Accepted</dt>
      <dd title={exactly(e.appended)}>
        {when(e.appended)} <span class="faint">· <Time at={e.appended} since /></span>
      </dd>
      {Math.abs(new Date(e.time).getTime() - new Date(e.appended).getTime()) > 1000 && (
        <>
          <dt>Happened</dt>
          <dd>
            <Time at={e.time} />
          </dd>
        </>
      )}
      {e.source && (
        <>
          <dt>Source</dt>
          <dd>{e.source.startsWith("src_") && !portal ? <a href={link("/sources/" + e.source)}>{e.source}</a> : e.source}</dd>
        </>
      )}
      {e.version && (
        <>
          <dt>Version</dt>
          <dd>{e.version}</dd>
        </>
      )}
      {e.origin && (
        <>
          <dt>Comes from</dt>
          <dd>
            {e.origin.tenant} <span class="faint">· sequence {count(e.origin.sequence)}</span>
          </dd>
        </>
      )}
      <dt>Size</dt>
      <dd>
        {bytes(Math.round(size))} {e.content_type && <span class="faint">· {e.content_type}</span>}
      </dd>
    </dl>
  )
}

function Data({ e, raw }: { e: EventStatus; raw: string | undefined }) {
  const tab = query.value.get("tab") ?? "data"
  const attributes = Object.entries(e.attributes ?? {})
  const names: [string, string][] = [["data", "Data"], ["raw", "Raw"], ["attributes", `Attributes${attributes.length ? " " + attributes.length : ""}`]]
  return (
    <>
      <Tabs names={names} at={tab} to={(t) => setQuery({ tab: t === "data" ? "" : t }, true)} />
      {tab === "attributes" ? (
        attributes.length ? (
          <dl>
            {attributes.map(([name, value]) => (
              <>
                <dt class="mono">{name}</dt>
                <dd class="mono">{value}</dd>
              </>
            ))}
          </dl>
        ) : (
          <p class="faint">It has none.</p>
        )
      ) : e.erased ? (
        <Empty title="The data was erased">Its place in the log, its id and what became of it stay.</Empty>
      ) : raw === undefined ? (
        e.data_base64 ? (
          <Code text={tab === "raw" ? e.data_base64 : decoded(e.data_base64)} />
        ) : (
          <p class="faint">{e.data_omitted ? "You may not see the data." : "There is none."}</p>
        )
      ) : tab === "raw" ? (
        <Code text={raw} />
      ) : (
        <Tree text={raw} />
      )}
    </>
  )
}

function Lane({ e, d, sub, done }: { e: EventStatus; d: Delivery; sub?: Subscription; done: () => void }) {
  const [word, tone] = fates[d.state]
  const tries = [...d.attempts].reverse()
  const last = d.attempts[0]
  const first = tries.find((t) => t.outcome === "taken")
  const detail = useGet<Attempt>(last && last.outcome !== "taken" ? api(`/subscriptions/${d.subscription}/attempts/${last.id}`) : null).data
  const of = api(`/subscriptions/${d.subscription}`)
  const act = (verb: string) => change("POST", `${of}/parked/${verb}`, { sequences: [e.sequence] }).then(done) // others may have its id
  const most = Math.max(1, ...tries.map((t) => millis(t.duration)))
  const batch = first?.batch && (first.events?.length ?? 0) > 1
  return (
    <div class="lane1">
      <header>
        <i class={"dot " + tone} aria-hidden="true" />
        <h3>
          <a href={subscriptionLink(d.subscription)}>{sub ? called(sub) : d.subscription}</a>
        </h3>
        <span class="soft">
          {d.state === "delivered" && first ? `taken ${batch ? `in a batch of ${first.events.length} ` : ""}after ${took(Math.max(0, new Date(first.started).getTime() + millis(first.duration) - new Date(e.appended).getTime()))}` : word}
          {tries.length > 1 && ` · ${some(tries.length, "try", "tries")}`}
        </span>
        <span class="end row">
          {d.state === "retrying" && may("manage", "replay") && <Act kind="do" label="Try now" does={() => act("retry")} done="It is due now." />}
          {d.state === "dead" && may("manage", "replay") && (
            <>
              <Act label="Discard" does={() => act("discard")} done="It was given up." />
              <Act kind="do" label="Redrive" does={() => act("redrive")} done="It is tried again." />
            </>
          )}
        </span>
      </header>
      {tries.length > 0 && (
        <ol class="tries">
          {tries.map((t) => (
            <li key={t.id}>
              <a href={attemptLink(d.subscription, t.id)} data-row>
                <span class="soft">{when(t.started)}</span>
                <span class={"mono " + (t.outcome === "taken" ? "ok" : "bad")}>{t.status || t.reason || t.outcome}</span>
                <Bar t={t} most={most} />
                <span class="num">{span(t.duration)}</span>
              </a>
            </li>
          ))}
        </ol>
      )}
      {d.state !== "delivered" && last && last.outcome !== "taken" && (
        <div class={"say " + (d.state === "dead" ? "" : "w")}>
          <b>{detail?.diagnosis ? detail.diagnosis.title + "." : last.message}</b> {detail?.diagnosis?.detail}
        </div>
      )}
      {d.state === "retrying" && last?.next && (
        <div class="soft" style={{ paddingTop: "4px" }}>
          Next try <Time at={last.next} since /> at {when(last.next)}
        </div>
      )}
    </div>
  )
}

/** How an attempt's time was spent: before it could be sent, and waiting for the answer. */
export function Bar({ t, most }: { t: Attempt; most: number }) {
  const total = millis(t.duration)
  const before = Math.min(total, millis(t.phases?.dns) + millis(t.phases?.connect) + millis(t.phases?.tls))
  const width = (ms: number) => `${(100 * ms) / most}%`
  return (
    <span class={"bar " + (t.outcome === "taken" ? "" : t.reason === "timeout" ? "w" : "b")} title={`before ${took(before)} · answer ${took(total - before)}`}>
      <i class="pre" style={{ width: width(before) }} />
      <i style={{ width: width(Math.max(total - before, most / 200)) }} />
    </span>
  )
}

function SendAgain({ e, subs, later, close, done }: { e: EventStatus; subs: Subscription[]; later: number; close: () => void; done: () => void }) {
  const [to, set] = useState(() => new Set(e.deliveries.map((d) => d.subscription)))
  const toggle = (id: string) => set((old) => (old.has(id) ? new Set([...old].filter((x) => x !== id)) : new Set([...old, id])))
  return (
    <Ask
      title="Send this event again"
      button={`Send to ${to.size}`}
      disabled={!to.size}
      close={close}
      does={async () => {
        const a = await change<{ replays: unknown[] }>("POST", api(`/events/${encodeURIComponent(e.id)}/resend` + params({ source: e.source })), { subscriptions: [...to] })
        say(`On its way to ${some(a.replays.length, "subscription")}.`)
        done()
      }}
    >
      <p class="soft">Each request carries the same webhook-id as before and the header eventhose-replay, so that a receiver can tell it from the first{later ? "" : " one"}.</p>
      <fieldset>
        <legend>To</legend>
        {e.deliveries.map((d) => {
          const s = subs.find((s) => s.id === d.subscription)
          return (
            <label class="pick" key={d.subscription}>
              <input type="checkbox" checked={to.has(d.subscription)} onChange={() => toggle(d.subscription)} />
              <span>
                {s ? called(s) : d.subscription} <span class="faint">{fates[d.state][0]}</span>
              </span>
            </label>
          )
        })}
      </fieldset>
    </Ask>
  )
}

function Erase({ e, path, done }: { e: EventStatus; path: string; done: () => void }) {
  const [asking, ask] = useState(false)
  const [typed, type] = useState("")
  return (
    <>
      <button type="button" onClick={() => ask(true)}>
        Erase its data…
      </button>
      {asking && (
        <Ask
          title="Erase the data for good"
          button="Erase"
          danger
          disabled={typed !== "erase"}
          close={() => ask(false)}
          does={async () => {
            await change("DELETE", path.replace(/(\?|$)/, "/data$1"))
            say("The data is gone.")
            done()
          }}
        >
          <p class="soft">The event of sequence {count(e.sequence)} keeps its place and its id, so that no reader sees a gap. Its data leaves the log, also for those who have not read it yet.</p>
          <label>
            <span>
              Type <code>erase</code>
            </span>
            <input value={typed} onInput={(x) => type(x.currentTarget.value)} autocomplete="off" />
          </label>
        </Ask>
      )}
    </>
  )
}

/** The append that would make this event again. */
function curl(e: EventStatus, raw: string | undefined): string {
  const { type, key, version, attributes, content_type } = e
  const head = JSON.stringify({ type, key: key || undefined, version, attributes, ...(raw === undefined ? { content_type, data_base64: e.data_base64 } : {}) })
  const body = raw === undefined ? head : head.slice(0, -1) + `,"data":${raw}}`
  return `curl ${quoted(location.origin + api("/events", tenant.value))} -H "Authorization: Bearer $EVENTHOSE_API_KEY" -H 'Content-Type: application/json' -d ${quoted(body)}`
}
