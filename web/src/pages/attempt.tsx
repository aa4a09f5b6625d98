import { change, useGet, type List } from "../api"
import { quoted } from "../parts/command"
import { called } from "../parts/condition"
import { Code, Copy, Tree } from "../parts/data"
import { attemptLink, Mend, subscriptionLink } from "../parts/mend"
import { Act } from "../parts/notices"
import { Failed, State, Tabs, Time, Waiting, Why } from "../parts/small"
import { count, exactly, millis, some, took, when } from "../parts/words"
import { eventLink, sourceAt, useSource } from "../parts/scope"
import { api, link, params, query, setQuery } from "../route"
import { limited, may } from "../session"
import type { Attempt as Seen, Subscription } from "../wire"

const kinds: Record<string, string> = {
  first: "the first try",
  retry: "a retry",
  probe: "a probe: the circuit was open, so it counts for nothing",
  replay: "asked for by a replay",
  redrive: "asked for by a redrive",
  test: "a test; it is not in the log",
}

/** One try: what was sent where, what came back, how long each part took, and in plain words what to do about it. */
export function Attempt({ at: [sub = "", id = ""] }: { at: string[] }) {
  const of = api(`/subscriptions/${encodeURIComponent(sub)}`)
  const got = useGet<Seen>(`${of}/attempts/${encodeURIComponent(id)}`)
  const owner = useGet<Subscription>(of, 4000)
  const t = got.data
  const event = t?.events[0]
  const alone = t && t.events.length === 1 && event && t.kind !== "test"
  const source = useSource(event ?? "", "", alone ? (t.sequences?.[0] ?? 0) : 0)
  const others = useGet<List<Seen>>(alone && source !== undefined ? `${of}/attempts` + params({ event, source }) : null).data?.data ?? []
  if (got.error) return <Failed error={got.error} again={got.reload} />
  if (!t) return <Waiting what="Looking for the attempt" />
  const s = owner.data
  const taken = t.outcome === "taken"
  const i = others.findIndex((o) => o.id === t.id)
  const before = i >= 0 ? others[i + 1] : undefined, after = i > 0 ? others[i - 1] : undefined
  return (
    <>
      <p class="crumb">
        <a href={link("/subscriptions")}>Subscriptions</a> · <a href={subscriptionLink(sub)}>{s ? called(s) : sub}</a> · attempts
      </p>
      <header>
        <h1>
          <State tone={taken ? "" : "b"}>{taken ? `Taken with ${t.status || "an acknowledgement"}` : t.status ? `Answered ${t.status}` : (t.diagnosis?.title ?? t.reason ?? t.outcome)}</State>
        </h1>
        <span class="id soft break">{t.id}</span>
        <span class="end row">
          {before && <a class="button" href={attemptLink(sub, before.id)}>Earlier try</a>}
          {after && <a class="button" href={attemptLink(sub, after.id)}>Later try</a>}
        </span>
      </header>
      {!taken && t.diagnosis && (
        <Why tone={t.next ? "w" : ""} title={t.diagnosis.title} acts={s && <Mend sub={s} diagnosis={t.diagnosis} done={owner.reload} />}>
          {t.diagnosis.detail}
        </Why>
      )}
      <div class="two" style={{ marginTop: "24px" }}>
        <section>
          <dl>
            <dt>When</dt>
            <dd title={exactly(t.started)}>
              {when(t.started)} <span class="faint">· <Time at={t.started} since /></span>
            </dd>
            <dt>What</dt>
            <dd>
              try {count(t.number)}, {kinds[t.kind] ?? t.kind}
            </dd>
            {t.url && (
              <>
                <dt>Where</dt>
                <dd class="mono">{t.url}</dd>
              </>
            )}
            <dt>Address</dt>
            <dd class="mono">{t.address || <span class="faint">nothing was connected</span>}</dd>
            <dt>Next try</dt>
            <dd>{t.next ? <><Time at={t.next} since /> at {when(t.next)}</> : <span class="faint">{taken ? "none is needed" : "none"}</span>}</dd>
            {t.message && !taken && !t.diagnosis && (
              <>
                <dt>It says</dt>
                <dd>{t.message}</dd>
              </>
            )}
            <dt>{t.events.length === 1 ? "Event" : some(t.events.length, "event")}</dt>
            <dd>
              <Carried t={t} />
            </dd>
            {t.replay && (
              <>
                <dt>Replay</dt>
                <dd class="mono">{t.replay}</dd>
              </>
            )}
          </dl>
          <Timings t={t} />
          {may("manage", "replay") && !limited() && t.kind !== "test" && t.events.length === 1 && event && (
            <p class="more">
              <Act label="Send it again" does={() => resend(event, t.sequences?.[0] ?? 0, sub)} done="It is on its way again." />
            </p>
          )}
        </section>
        <section>
          <Sides t={t} />
        </section>
      </div>
    </>
  )
}

async function resend(event: string, sequence: number, sub: string): Promise<void> {
  const path = api(`/events/${encodeURIComponent(event)}/resend`)
  const source = sequence ? await sourceAt(event, sequence) : ""
  await change("POST", path + params({ source }), { subscriptions: [sub] })
}

function Carried({ t }: { t: Seen }) {
  const shown = t.events.slice(0, 20)
  return (
    <>
      {shown.map((id, i) => (
        <div key={id}>
          {t.kind === "test" ? <span class="mono">{id}</span> : <a class="id" href={eventLink(id, t.sequences?.[i])}>{id}</a>}
          {t.failed?.includes(t.sequences?.[i] ?? -1) && <span class="bad"> not taken</span>}
        </div>
      ))}
      {t.events.length > shown.length && <span class="faint">and {count(t.events.length - shown.length)} more</span>}
    </>
  )
}

/** How the time was spent, a line a phase. */
function Timings({ t }: { t: Seen }) {
  const p = t.phases ?? {}
  const total = millis(t.duration)
  const known = millis(p.dns) + millis(p.connect) + millis(p.tls) + millis(p.wait)
  const parts: [string, number, boolean][] = [
    ["name lookup", millis(p.dns), true],
    ["connect", millis(p.connect), true],
    ["TLS handshake", millis(p.tls), true],
    ["until the answer began", millis(p.wait), false],
    ["reading the rest", Math.max(0, total - known), false],
  ]
  let from = 0
  return (
    <>
      <h2>
        Time <span class="soft">{took(total)} in all{t.address && !p.connect ? " · on a connection that was open" : ""}</span>
      </h2>
      <ol class="tries">
        {parts
          .filter(([, ms]) => ms > 0)
          .map(([name, ms, pre]) => {
            const left = from
            from += ms
            return (
              <li key={name} class="row" style={{ padding: "3px 0" }}>
                <span class="soft" style={{ width: "150px" }}>
                  {name}
                </span>
                <span class="bar grow">
                  <i style={{ width: `${(100 * left) / total}%`, background: "none" }} />
                  <i class={pre ? "pre" : ""} style={{ width: `${Math.max(0.5, (100 * ms) / total)}%` }} />
                </span>
                <span class="num" style={{ width: "64px" }}>
                  {took(ms)}
                </span>
              </li>
            )
          })}
      </ol>
    </>
  )
}

function Sides({ t }: { t: Seen }) {
  const side = query.value.get("side") ?? (t.outcome === "taken" ? "request" : "response")
  const q = t.request
  return (
    <>
      <Tabs names={[["request", "Request"], ["response", `Response${t.status ? " " + t.status : ""}`]]} at={side} to={(x) => setQuery({ side: x }, true)} />
      {side === "request" ? (
        q ? (
          <>
            <p class="mono break">
              {q.method} {q.url}
            </p>
            <Headers of={q.headers} />
            {t.event_gone ? <p class="soft">Retention or erasure has taken the data since.</p> : <Body text={q.body} />}
            {q.body_truncated && <p class="soft">This is its beginning.</p>}
            <p class="more">
              <Copy label="Copy as curl" text={() => curl(q)} />
            </p>
          </>
        ) : (
          <p class="soft">{t.event_gone ? "Retention or erasure has taken what was sent." : "What was sent is not shown here."}</p>
        )
      ) : t.status || t.response_body ? (
        <>
          <Headers of={t.response_headers ?? {}} />
          {t.response_body ? <Body text={t.response_body} /> : <p class="soft">{t.outcome === "taken" ? "The answer had no body." : "No body was kept."}</p>}
        </>
      ) : (
        <p class="soft">No answer came.</p>
      )}
    </>
  )
}

/** The request that would send it again; curl takes the address as it is, without patterns of its own. */
function curl(q: NonNullable<Seen["request"]>): string {
  const headers = Object.entries(q.headers).map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`)
  return ["curl --globoff -X", quoted(q.method), quoted(q.url), ...headers, "--data-binary @body.json"].join(" ")
}

function Headers({ of }: { of: Record<string, string> }) {
  const all = Object.entries(of)
  if (!all.length) return null
  return (
    <dl>
      {all.map(([name, value]) => (
        <>
          <dt class="mono">{name}</dt>
          <dd class="mono">{value}</dd>
        </>
      ))}
    </dl>
  )
}

function Body({ text }: { text: string }) {
  return /^\s*[[{]/.test(text) ? <Tree text={text} /> : <Code text={text} />
}
