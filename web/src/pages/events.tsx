import { useEffect, useRef, useState } from "preact/hooks"
import { get, Problem, text } from "../api"
import { Find } from "../parts/find"
import { Choice, Empty, Failed, State, Time, type Tone } from "../parts/small"
import { elements, member } from "../parts/raw"
import { brief, count, when } from "../parts/words"
import { api, link, params, portal, query, setQuery } from "../route"
import { may } from "../session"
import type { Event } from "../wire"
import { preview } from "./live"

interface Found {
  data: Event[]
  next: string | null
  searched_to: string
  head: number
}

const names = ["types", "keys", "status", "since", "until", "expression", "id"] as const
type Names = (typeof names)[number]

/** What became of an event, over all of its subscriptions, in a word. */
export function fate(d: Event["deliveries"]): [string, Tone] {
  if (!d) return ["", "n"]
  const of = d.taken + d.pending + d.retrying + d.waiting + d.dead
  if (!of) return ["nobody wants it", "n"]
  if (d.dead) return [of > 1 ? `dead at ${d.dead} of ${of}` : "dead", "b"]
  if (d.retrying) return [of > 1 ? `retrying at ${d.retrying} of ${of}` : "retrying", "w"]
  if (d.waiting) return [of > 1 ? `waiting at ${d.waiting} of ${of}` : "waiting", "w"]
  if (d.pending) return [of > 1 ? `pending at ${d.pending} of ${of}` : "pending", "p"]
  return [of > 1 ? `taken by ${of}` : "taken", ""]
}

/** A time as a form field has it, in the reader's own time zone, and back. */
const toField = (t: string | null) => {
  if (!t || /^\d+(m|h|s)/.test(t)) return ""
  const d = new Date(t)
  return Number.isNaN(d.getTime()) ? "" : new Date(d.getTime() - d.getTimezoneOffset() * 60_000).toISOString().slice(0, 19)
}
const fromField = (v: string) => (v ? new Date(v).toISOString() : "")

const presets: [string, string][] = [
  ["", "any time"],
  ["15m", "last 15 minutes"],
  ["1h", "last hour"],
  ["24h", "last day"],
  ["168h", "last 7 days"],
  ["exact", "between…"],
]

const ms: Record<string, number> = { "15m": 9e5, "1h": 36e5, "24h": 864e5, "168h": 6048e5 }

/** The log, newest first. The address holds the filter; more pages are added below. */
export function Events() {
  const at = Object.fromEntries(names.map((n) => [n, query.value.get(n) ?? ""])) as Record<Names, string>
  const filter = names.map((n) => at[n]).join("\n")
  const [pages, set] = useState<Found[]>([])
  const [error, fail] = useState<Problem>()
  const [busy, setBusy] = useState(true)
  const [fresh, setFresh] = useState(0)

  const asking = useRef<AbortController>(null)
  const ask = async (before: string) => {
    asking.current?.abort()
    const { signal } = (asking.current = new AbortController())
    setBusy(true)
    try {
      const since = ms[at.since] ? new Date(Date.now() - ms[at.since]!).toISOString() : at.since
      const said = await text(api("/events/search" + params({ ...at, since, before, limit: 50 })), signal)
      if (signal.aborted) return
      const found = JSON.parse(said) as Found
      elements(member(said, "data") ?? "[]").forEach((written, i) => (found.data[i]!.text = written))
      set((old) => (before ? [...old, found] : [found]))
      fail(undefined)
      if (!before) setFresh(0)
      setBusy(false)
    } catch (e) {
      if (signal.aborted) return
      fail(e as Problem)
      setBusy(false)
    }
  }
  useEffect(() => {
    set([])
    void ask("")
    return () => asking.current?.abort()
  }, [filter])
  const head = pages[0]?.head
  useEffect(() => {
    // Only says that there is more: rows do not move under the reader's hand.
    let over = false
    const clock = setInterval(async () => {
      if (document.hidden || head === undefined || at.until || at.id) return
      const o = await get<{ head: { last: number } }>(api("/overview")).catch(() => undefined)
      if (o && !over) setFresh(o.head.last - head)
    }, 4000)
    return () => {
      over = true
      clearInterval(clock)
    }
  }, [head, filter])

  const events = pages.flatMap((p) => p.data)
  const last = pages.at(-1)
  return (
    <>
      <header>
        <h1>Events</h1>
        <span class="soft">{head !== undefined && `of ${brief(head)} in the log`}</span>
        <Find />
      </header>
      <Filters at={at} />
      {error && <Failed error={error} again={() => ask("")} />}
      {fresh > 0 && (
        <p class="more" role="status">
          <button type="button" onClick={() => ask("")}>
            {count(fresh)} newer in the log: show {fresh === 1 ? "it" : "them"}
          </button>
        </p>
      )}
      {events.length > 0 && (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>Time</th>
                <th>Type</th>
                <th class="wide-only">Key</th>
                <th>State</th>
                <th class="num wide-only">Sequence</th>
                <th class="wide-only">Data</th>
              </tr>
            </thead>
            <tbody>
              {events.map((e) => {
                const [word, tone] = fate(e.deliveries)
                return (
                  <tr key={e.sequence}>
                    <td class="soft">
                      <Time at={e.appended} />
                    </td>
                    <td class="name">
                      <a href={link("/events/" + encodeURIComponent(e.id) + params({ source: e.source }))} data-row>
                        {e.type}
                      </a>
                    </td>
                    <td class="mono wide-only">{e.key && <a href={link("/events" + params({ keys: e.key }))}>{e.key}</a>}</td>
                    <td>
                      <State tone={tone}>{word}</State>
                    </td>
                    <td class="num faint wide-only">{count(e.sequence)}</td>
                    <td class="mono soft fit wide-only">{preview(e)}</td>
                  </tr>
                )
              })}
            </tbody>
          </table>
        </div>
      )}
      {last && (
        <div class="more">
          {last.next ? (
            <>
              <button type="button" disabled={busy} onClick={() => ask(last.next!)}>
                {busy ? "Searching…" : events.length ? "Older" : "Search on"}
              </button>
              <span>searched back to {when(last.searched_to)}</span>
            </>
          ) : (
            events.length > 0 && <span class="faint">That is all{at.since ? " of that time" : ", back to the first event left"}.</span>
          )}
        </div>
      )}
      {last && !last.next && !events.length && (
        <Empty title="No event matches">
          {filter.trim() ? (
            <a class="ref" href={link("/events")}>
              Show all events
            </a>
          ) : portal ? (
            "Nothing has happened yet."
          ) : (
            <>
              The log is empty. <a class="ref" href={link("/start")}>First steps</a> sends a first event.
            </>
          )}
        </Empty>
      )}
      {!last && busy && <p class="faint" role="status">Searching…</p>}
    </>
  )
}

function Filters({ at }: { at: Record<Names, string> }) {
  const preset = at.until || (at.since && !ms[at.since]) ? "exact" : at.since
  const [chosen, choose] = useState(preset)
  useEffect(() => choose(preset), [preset])
  return (
    <form
      class="filters"
      key={names.map((n) => at[n]).join("\n")}
      onSubmit={(e) => {
        e.preventDefault()
        const f = new FormData(e.currentTarget)
        const said = (n: string) => String(f.get(n) ?? "").trim()
        const exact = said("preset") === "exact"
        setQuery({
          types: said("types"),
          keys: said("keys"),
          status: said("status"),
          expression: said("expression"),
          id: said("id"),
          since: exact ? fromField(said("since")) : said("preset"),
          until: exact ? fromField(said("until")) : "",
        })
      }}
    >
      <label>
        Types
        <input name="types" defaultValue={at.types} placeholder="order.*" />
      </label>
      <label>
        Key
        <input name="keys" defaultValue={at.keys} />
      </label>
      <label>
        State
        <Choice name="status" value={at.status}>
          <option value="">any</option>
          <option value="taken">taken</option>
          <option value="pending">pending</option>
          <option value="retrying">retrying</option>
          <option value="waiting">waiting for its key</option>
          <option value="failed">failed: retrying or dead</option>
          <option value="dead">dead</option>
        </Choice>
      </label>
      <label>
        Time
        <select name="preset" value={chosen} onChange={(e) => choose(e.currentTarget.value)}>
          {presets.map(([id, words]) => (
            <option key={id} value={id}>
              {words}
            </option>
          ))}
        </select>
      </label>
      {chosen === "exact" && (
        <>
          <label>
            From
            <input type="datetime-local" step={1} name="since" defaultValue={toField(at.since)} />
          </label>
          <label>
            Until
            <input type="datetime-local" step={1} name="until" defaultValue={toField(at.until)} />
          </label>
        </>
      )}
      {(!portal || may("read", "data")) && (
        <label class="wide">
          Expression
          <input name="expression" class="mono" defaultValue={at.expression} placeholder='data.amount > 100 && attributes.region == "eu"' />
        </label>
      )}
      <label>
        Id
        <input name="id" class="mono" defaultValue={at.id} />
      </label>
      <button>Search</button>
    </form>
  )
}
