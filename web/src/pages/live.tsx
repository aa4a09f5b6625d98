import { useEffect, useRef, useState } from "preact/hooks"
import { lines, type Problem } from "../api"
import { Find } from "../parts/find"
import { Empty, State } from "../parts/small"
import { member } from "../parts/raw"
import { count, rate, when } from "../parts/words"
import { api, link, params, query, setQuery } from "../route"
import type { Event } from "../wire"

const shown = 100 // rows in the page, and in memory

/** What a row says of an event. */
interface Row extends Pick<Event, "id" | "type" | "key" | "source" | "sequence" | "appended"> {
  data: string
}

// The beginning of the data is written and read again: a mere slice would keep the whole event in memory.
const row = (e: Event): Row => ({ id: e.id, type: e.type, key: e.key, source: e.source, sequence: e.sequence, appended: e.appended, data: JSON.parse(JSON.stringify(preview(e))) })

/** Events as they come. Thousands a second only change numbers: rows are drawn at most ten times a second, and no more than fit. */
export function Live() {
  const types = query.value.get("types") ?? "", keys = query.value.get("keys") ?? "", expression = query.value.get("expression") ?? ""
  const [paused, pause] = useState(false)
  const [state, setState] = useState<"connecting" | "live" | "lost">("connecting")
  const [wrong, setWrong] = useState<Problem>()
  const [rows, setRows] = useState<Row[]>([])
  const [seen, setSeen] = useState({ n: 0, rate: 0 })
  const total = useRef(0)
  const still = useRef(false)
  still.current = paused

  useEffect(() => {
    const stop = new AbortController()
    let fresh: Event[] = [] // what came since the last look
    let newest: Row[] = []
    total.current = 0
    setRows([])
    setWrong(undefined)
    let cursor = "now"
    const follow = async () => {
      for (let wait = 500; !stop.signal.aborted; wait = Math.min(8000, wait * 2)) {
        try {
          setState("connecting")
          let heard = false
          await lines(api("/events/stream" + params({ after: cursor, types, keys, expression })), (e: Event, line: string) => {
            if (!heard) setState("live")
            heard = true
            if (e.cursor) cursor = e.cursor
            if (!e.id) return // it says how far the log was looked through
            wait = 500
            total.current++
            e.text = line
            fresh.push(e)
            if (fresh.length > shown * 2) fresh = fresh.slice(-shown)
          }, stop.signal)
        } catch (e) {
          if (stop.signal.aborted) return
          const p = e as Problem
          if (p.status === 422 || p.status === 400 || p.status === 403) {
            setWrong(p)
            return setState("lost")
          }
          if (p.code === "cursor_gone") cursor = "now"
        }
        setState("lost")
        await new Promise((r) => setTimeout(r, wait))
      }
    }
    void follow()
    let before = 0, at = performance.now(), speed = 0
    const draw = setInterval(() => {
      const now = performance.now()
      if (now - at >= 1000) {
        speed = ((total.current - before) * 1000) / (now - at)
        before = total.current
        at = now
      }
      setSeen((s) => (s.n === total.current && s.rate === speed ? s : { n: total.current, rate: speed }))
      if (fresh.length) newest = [...fresh.slice(-shown).reverse().map(row), ...newest].slice(0, shown)
      fresh = []
      if (!still.current && !document.hidden) setRows(newest)
    }, 100)
    return () => {
      stop.abort()
      clearInterval(draw)
    }
  }, [types, keys, expression])

  return (
    <>
      <header>
        <h1>Live</h1>
        <span class="soft" role="status">
          <State tone={wrong ? "b" : state === "live" ? (paused ? "p" : "") : "w"}>{wrong ? "stopped" : state === "live" ? (paused ? "paused" : "live") : state === "lost" ? "reconnecting" : "connecting"}</State> · {rate(seen.rate)} /s · {count(seen.n)} seen
        </span>
        <Find />
      </header>
      <Filter types={types} keys={keys} expression={expression} pause={() => pause(!paused)} paused={paused} />
      {wrong && (
        <p class="wrong" role="alert">
          {wrong.field} {wrong.message}
        </p>
      )}
      {rows.length ? (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>Time</th>
                <th>Type</th>
                <th class="wide-only">Key</th>
                <th class="num">Sequence</th>
                <th class="wide-only">Data</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((e, i) => (
                // Rows stay where they are and change what they say: nothing shifts.
                <tr key={i}>
                  <td class="soft">{when(e.appended)}</td>
                  <td class="name">
                    <a href={link("/events/" + encodeURIComponent(e.id) + params({ source: e.source }))} data-row>
                      {e.type}
                    </a>
                  </td>
                  <td class="mono wide-only">{e.key}</td>
                  <td class="num faint">{count(e.sequence)}</td>
                  <td class="mono soft fit wide-only">{e.data}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <Empty title={state === "live" ? "Waiting for the next event" : "Connecting"}>
          Events appear here as they are appended{types || keys || expression ? ", those that the filter lets through" : ""}. What was appended before is in <a class="ref" href={link("/events" + params({ types, keys, expression }))}>Events</a>.
        </Empty>
      )}
    </>
  )
}

/** The beginning of an event's data, in a line. */
export function preview(e: Event): string {
  if (e.erased) return "erased"
  if (e.data_omitted) return "…"
  if (e.data === undefined) return e.data_base64 ? "binary" : ""
  return ((e.text && member(e.text, "data")) ?? JSON.stringify(e.data)).slice(0, 160)
}

function Filter({ types, keys, expression, pause, paused }: { types: string; keys: string; expression: string; pause: () => void; paused: boolean }) {
  return (
    <form
      class="filters"
      onSubmit={(e) => {
        e.preventDefault()
        const f = new FormData(e.currentTarget)
        setQuery({ types: String(f.get("types")), keys: String(f.get("keys")), expression: String(f.get("expression")) })
      }}
    >
      <label>
        Types
        <input name="types" defaultValue={types} placeholder="order.*" />
      </label>
      <label>
        Key
        <input name="keys" defaultValue={keys} />
      </label>
      <label class="wide">
        Expression
        <input name="expression" class="mono" defaultValue={expression} placeholder="data.amount > 100" />
      </label>
      <button>Filter</button>
      <button type="button" onClick={pause} data-act="p" aria-pressed={paused}>
        {paused ? "Go on" : "Pause"}
      </button>
    </form>
  )
}
