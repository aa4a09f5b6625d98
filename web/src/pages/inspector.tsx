import { useEffect, useState } from "preact/hooks"
import { change, get, Problem, useGet, type List } from "../api"
import { Code, Tree } from "../parts/data"
import { Ask } from "../parts/dialog"
import { Act, say } from "../parts/notices"
import { Empty, Failed, State, Time, Waiting } from "../parts/small"
import { count, span, when } from "../parts/words"
import { api, go, link, params, query, setQuery, tenant } from "../route"
import { may } from "../session"
import type { Inspected, Inspector as Box } from "../wire"

/** Receivers in this server, to look at what is sent before there is a receiver. */
export function Inspectors() {
  const add = async () => {
    const of = tenant.value
    const made = await change<Box>("POST", api("/inspectors", of), {})
    go(link("/inspector/" + made.id, of))
  }
  const list = useGet<List<Box>>(api("/inspectors?limit=100"), 5000)
  return (
    <>
      <header>
        <h1>Inspector</h1>
        <span class="soft">receivers in this server, that show what comes and fail when they are told to</span>
        {may("manage") && <Act kind="do" label="New inspector" does={add} />}
      </header>
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.data && list.data.data.length > 0 && (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>Inspector</th>
                <th>Answers</th>
                <th class="wide-only">Address</th>
                <th>Until</th>
              </tr>
            </thead>
            <tbody>
              {list.data.data.map((i) => (
                <tr key={i.id}>
                  <td class="name">
                    <a data-row href={link("/inspector/" + i.id)}>
                      {i.name || i.id}
                    </a>
                  </td>
                  <td>{answers(i)}</td>
                  <td class="mono soft fit wide-only">{i.url}</td>
                  <td class="soft">
                    <Time at={i.expires} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {list.data && !list.data.data.length && <Empty title="There is no inspector">An inspector is an address that takes any request, shows it with its signature checked, and answers as you say: slowly, with 500, or only sometimes. Point a subscription at it to see retries happen.</Empty>}
    </>
  )
}

const answers = (i: Box) => [String(i.status), i.delay && i.delay !== "0s" && "after " + span(i.delay), i.fail_rate && `fails ${Math.round(i.fail_rate * 100)} %`].filter(Boolean).join(" · ")

/** One receiver, live. */
export function Inspector({ at: [id = ""] }: { at: string[] }) {
  const of = api("/inspectors/" + encodeURIComponent(id))
  const got = useGet<Box>(of)
  const [rows, set] = useState<Inspected[]>([])
  const [refused, refuse] = useState<Problem>()
  const [editing, edit] = useState(false)
  const [fresh, again] = useState(0)
  useEffect(() => {
    const stop = new AbortController()
    refuse(undefined)
    const follow = async () => {
      let all: Inspected[] = []
      for (let pause = 0; !stop.signal.aborted; ) {
        try {
          const after = all[0]?.id
          let list = await get<List<Inspected>>(of + "/requests" + params({ limit: 100, after, wait: after && "20s" }), stop.signal)
          const more = list.data
          while (list.next && more.length < 100) { // of large ones a page has fewer
            list = await get<List<Inspected>>(of + "/requests" + params({ limit: 100, after, before: list.next }), stop.signal)
            more.push(...list.data)
          }
          all = [...more, ...all].slice(0, 100)
          if (more.length) set(all)
          pause = all.length && more.length ? 0 : 700
        } catch (e) {
          if (stop.signal.aborted || (e instanceof Problem && e.status === 404)) return
          if (e instanceof Problem && (e.status === 401 || e.status === 403)) return refuse(e)
          pause = 2000
        }
        await new Promise((r) => setTimeout(r, pause))
      }
    }
    void follow()
    return () => stop.abort()
  }, [of, fresh])
  if (got.error) return <Failed error={got.error} again={got.reload} />
  const box = got.data
  if (!box) return <Waiting />
  const all = link("/inspector")
  const at = rows.find((r) => r.id === query.value.get("request")) ?? rows[0]
  return (
    <>
      <p class="crumb">
        <a href={link("/inspector")}>Inspector</a>
      </p>
      <header>
        <h1>{box.name || "Inspector"}</h1>
        <span class="soft">answers {answers(box)}</span>
        <span class="end row">
          {may("manage") && (
            <>
              <Act
                kind="do"
                label="Subscribe it"
                does={async () => {
                  const home = tenant.value
                  const s = await change<{ id: string; secret: string }>("POST", api("/subscriptions"), { name: box.name || "inspector", destination: { type: "webhook", url: box.destination } })
                  await change("PATCH", of, { secret: s.secret })
                  got.reload()
                  return <>It gets every event from now on. <a href={link("/subscriptions/" + s.id, home)}>See its lane</a></>
                }}
              />
              <button type="button" onClick={() => edit(true)}>
                How it answers…
              </button>
              <Act label="Clear" does={() => change("DELETE", of + "/requests").then(() => (set([]), again((n) => n + 1)))} />
              <Act kind="danger" label="Delete" does={() => change("DELETE", of).then(() => go(all))} />
            </>
          )}
        </span>
      </header>
      <dl>
        <dt>From anywhere</dt>
        <dd class="mono">{box.url}</dd>
        <dt>As a destination</dt>
        <dd class="mono">{box.destination}</dd>
      </dl>
      {refused ? (
        <Failed error={refused} again={() => again((n) => n + 1)} />
      ) : !rows.length ? (
        <Empty title="Waiting for the first request">
          <Code text={`curl ${box.url} -d '{"hello": "there"}'`} />
        </Empty>
      ) : (
        <div class="two">
          <section class="scroll" tabindex={0}>
            <table>
              <thead>
                <tr>
                  <th>Time</th>
                  <th>Request</th>
                  <th>Signature</th>
                  <th class="num">Answer</th>
                </tr>
              </thead>
              <tbody>
                {rows.map((r) => (
                  <tr key={r.id}>
                    <td class="soft">
                      <button type="button" class="plain" data-row aria-pressed={r === at} onClick={() => setQuery({ request: r.id }, true)}>
                        <Time at={r.time} />
                      </button>
                    </td>
                    <td class="mono">
                      {r.method} {r.path}
                    </td>
                    <td>
                      <State tone={r.signature === "verified" ? "" : r.signature === "none" ? "n" : "b"}>{r.signature === "none" ? "none" : r.signature.split(":")[0]}</State>
                    </td>
                    <td class={"num mono " + (r.answered < 300 ? "ok" : "bad")}>{r.answered}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </section>
          {at && <One r={at} />}
        </div>
      )}
      {editing && <Answers box={box} of={of} close={() => edit(false)} done={got.reload} />}
    </>
  )
}

function One({ r }: { r: Inspected }) {
  const text = r.body || r.body_base64 || ""
  return (
    <section>
      <h2 style={{ marginTop: 0 }}>
        {r.method} {r.path}
        {r.query ? "?" + r.query : ""} <span class="soft">{when(r.time)} · answered {r.answered} in {span(r.took)}</span>
      </h2>
      {r.signature !== "none" && <p class={r.signature === "verified" ? "ok" : "bad"}>{r.signature === "verified" ? "The signature verifies." : r.signature}</p>}
      <dl>
        {Object.entries(r.headers).map(([name, v]) => (
          <>
            <dt class="mono">{name}</dt>
            <dd class="mono">{[v].flat().join(", ")}</dd>
          </>
        ))}
      </dl>
      {!r.body && r.body_base64 && <p class="soft">The body is no text; this is its base64.</p>}
      {/^\s*[[{]/.test(text) ? <Tree text={text} /> : text ? <Code text={text} /> : <p class="faint">No body.</p>}
      {r.body_truncated && <p class="soft">The body was longer; this is its beginning.</p>}
    </section>
  )
}

function Answers({ box, of, close, done }: { box: Box; of: string; close: () => void; done: () => void }) {
  const [status, setStatus] = useState(String(box.status)), [delay, setDelay] = useState(box.delay || "0s"), [rate, setRate] = useState(String(Math.round((box.fail_rate ?? 0) * 100))), [name, setName] = useState(box.name ?? "")
  return (
    <Ask title="How it answers" button="Save" close={close} does={() => change("PATCH", of, { name, status: Number(status), delay, fail_rate: Number(rate) / 100 }).then(() => (say("It answers like that now."), done()))}>
      <label>
        <span>Name</span>
        <input value={name} onInput={(e) => setName(e.currentTarget.value)} />
      </label>
      <label>
        <span>Status</span>
        <input type="number" min={200} max={599} required value={status} onInput={(e) => setStatus(e.currentTarget.value)} />
      </label>
      <label>
        <span>Delay</span>
        <input value={delay} required onInput={(e) => setDelay(e.currentTarget.value)} />
        <span class="hint">At most 10s.</span>
      </label>
      <label>
        <span>Fails, of {count(100)} requests</span>
        <input type="number" min={0} max={100} required value={rate} onInput={(e) => setRate(e.currentTarget.value)} />
        <span class="hint">These are answered 500.</span>
      </label>
    </Ask>
  )
}
