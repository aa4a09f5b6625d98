import { useEffect, useState } from "preact/hooks"
import { change, type Problem } from "../api"
import { api } from "../route"
import type { Replay as Running, Subscription } from "../wire"
import { Ask } from "./dialog"
import { say, sentence } from "./notices"
import { count, some } from "./words"

/** Replays that run beside live order, and how far each has come. */
export function Replays({ sub }: { sub: Subscription }) {
  const all = sub.status?.replays ?? []
  if (!all.length) return null
  return (
    <>
      <h2>
        Replays <span class="soft">beside live order; each is marked by the header eventhose-replay</span>
      </h2>
      {all.map((r) => (
        <Progress key={r.id} r={r} />
      ))}
    </>
  )
}

function Progress({ r }: { r: Running }) {
  const of = Math.max(1, r.to - r.from + 1), at = Math.max(0, Math.min(of, r.at - r.from + 1))
  return (
    <p class="row">
      <span class="mono">{r.id}</span>
      <span class="grow" style={{ minWidth: "120px" }}>
        <progress value={at} max={of} aria-label={`Replay ${r.id}`} />
      </span>
      <span class="soft">
        {some(r.sent, "event")} sent · {count(at)} of {count(of)} places · sequence {count(r.from)} – {count(r.to)}
        {r.status ? ` · only ${r.status}` : ""}
      </span>
    </p>
  )
}

const windows: [string, string, number][] = [
  ["15m", "what was appended in the last 15 minutes", 9e5],
  ["1h", "in the last hour", 36e5],
  ["24h", "in the last day", 864e5],
  ["exact", "between two times…", 0],
  ["all", "everything that the log still has", 0],
]

/** Sends a range of the log once more. How many events that are is counted before anything is sent. */
export function Replay({ sub, close, done }: { sub: Subscription; close: () => void; done: () => void }) {
  const [window_, setWindow] = useState("1h")
  const [from, setFrom] = useState(""), [to, setTo] = useState(""), [types, setTypes] = useState(""), [status, setStatus] = useState("failed")
  const [counted, setCounted] = useState<number | string>()
  const [partly, setPartly] = useState(false) // the range is too long to be counted to its end
  const spec = () => {
    const preset = windows.find(([id]) => id === window_)![2]
    return {
      from: preset ? new Date(Date.now() - preset).toISOString() : window_ === "exact" && from ? new Date(from).toISOString() : undefined,
      to: window_ === "exact" && to ? new Date(to).toISOString() : undefined,
      types: types.split(/[\s,]+/).filter(Boolean).length ? types.split(/[\s,]+/).filter(Boolean) : undefined,
      status: status || undefined,
    }
  }
  const path = api(`/subscriptions/${sub.id}/replay`)
  useEffect(() => {
    let stale = false
    setCounted(undefined)
    const soon = setTimeout(
      () =>
        change<{ count: number; counted_to?: number }>("POST", path, { ...spec(), dry_run: true })
          .then((a) => {
            if (stale) return
            setCounted(a.count)
            setPartly(a.counted_to !== undefined)
          })
          .catch((e: Problem) => stale || setCounted(sentence(e))),
      250,
    )
    return () => {
      stale = true
      clearTimeout(soon)
    }
  }, [window_, from, to, types, status])
  return (
    <Ask
      title="Replay to this subscription"
      button={typeof counted === "number" && !partly ? `Send ${some(counted, "event")}` : "Send"}
      disabled={typeof counted !== "number" || !(counted || partly)}
      close={close}
      does={async () => {
        await change("POST", path, spec())
        say("The replay runs. Its progress is on this page.")
        done()
      }}
    >
      <label>
        <span>Which events</span>
        <select value={window_} onChange={(e) => setWindow(e.currentTarget.value)}>
          {windows.map(([id, words]) => (
            <option key={id} value={id}>
              {words}
            </option>
          ))}
        </select>
      </label>
      {window_ === "exact" && (
        <div class="row">
          <label class="field">
            <span>From</span>
            <input type="datetime-local" step={1} value={from} onInput={(e) => setFrom(e.currentTarget.value)} />
          </label>
          <label class="field">
            <span>Until</span>
            <input type="datetime-local" step={1} value={to} onInput={(e) => setTo(e.currentTarget.value)} />
          </label>
        </div>
      )}
      <label>
        <span>Of those</span>
        <select value={status} onChange={(e) => setStatus(e.currentTarget.value)}>
          <option value="">all</option>
          <option value="failed">only those that failed</option>
          <option value="dead">only dead ones</option>
          <option value="delivered">only delivered ones</option>
        </select>
      </label>
      <label>
        <span>Types (optional)</span>
        <input class="mono" value={types} placeholder="order.*" onInput={(e) => setTypes(e.currentTarget.value)} />
      </label>
      <p role="status" class={typeof counted === "string" ? "wrong" : "soft"}>
        {counted === undefined ? "Counting…" : typeof counted === "string" ? counted : `${partly ? "At least " : ""}${some(counted, "event")} would be sent once more, beside live order, with the same webhook-id as before.`}
      </p>
    </Ask>
  )
}
