// What can be done about a subscription in trouble: one list of buttons for the overview, the subscription and the attempt.
import { useState } from "preact/hooks"
import { change } from "../api"
import { api, link } from "../route"
import { may } from "../session"
import type { Diagnosis, Subscription } from "../wire"
import { Ask } from "./dialog"
import { Act, say } from "./notices"
import { millis, some } from "./words"

const of = (s: Subscription, path = "") => api(`/subscriptions/${s.id}${path}`)
const most = 30_000 // the longest time-out, in ms

/** Buttons for what a diagnosis asks for, and for what is parked. done is called after each change. */
export function Mend({ sub, diagnosis, done }: { sub: Subscription; diagnosis?: Diagnosis; done: () => void }) {
  const [asking, ask] = useState("")
  const manage = may("manage", "manage"), replay = may("manage", "replay"), secrets = may("manage", "secrets")
  const dead = sub.status?.dead ?? 0, retrying = sub.status?.retrying ?? 0
  const fix = diagnosis?.fix
  const timeout = millis(sub.retry.timeout)
  return (
    <>
      {sub.state !== "active" && manage && (
        <Act kind="do" label="Resume" does={() => change("POST", of(sub, "/resume")).then(done)} done={`${sub.name || sub.id} goes on from its cursor.`} />
      )}
      {fix === "rotate_secret" && secrets && (
        <button type="button" class="do" onClick={() => ask("rotate")}>
          Rotate with overlap…
        </button>
      )}
      {fix === "edit_url" && manage && (
        <button type="button" class="do" onClick={() => ask("url")}>
          Change the address…
        </button>
      )}
      {fix === "raise_timeout" && manage && timeout < most && (
        <Act
          kind="do"
          label={`Wait ${Math.min(most, timeout * 2) / 1000} s`}
          does={() => change("PATCH", of(sub), { retry: { ...sub.retry, timeout: `${Math.min(most, timeout * 2)}ms` } }).then(done)}
          done="The time-out is longer now."
        />
      )}
      {fix === "slow_down" && manage && (
        <button type="button" class="do" onClick={() => ask("rate")}>
          Limit the rate…
        </button>
      )}
      {retrying > 0 && replay && (
        <Act label="Try now" act="r" does={() => change<{ count: number }>("POST", of(sub, "/parked/retry")).then((a) => (done(), `${some(a.count, "event")} due now.`))} />
      )}
      {dead > 0 && replay && (
        <Act kind={fix ? "" : "do"} label={`Redrive ${dead === 1 ? "it" : dead.toLocaleString("en")}`} act={retrying ? undefined : "r"} does={() => change<{ count: number }>("POST", of(sub, "/parked/redrive")).then((a) => (done(), `${some(a.count, "dead event")} tried again.`))} />
      )}
      {asking === "rotate" && <Rotate sub={sub} close={() => ask("")} done={done} />}
      {asking === "url" && <Address sub={sub} close={() => ask("")} done={done} />}
      {asking === "rate" && <Rate sub={sub} close={() => ask("")} done={done} />}
    </>
  )
}

const overlaps: Record<string, string> = { "1h": "1 hour", "24h": "24 hours", "168h": "7 days" }

/** A new secret, with the old one beside it for a while. */
export function Rotate({ sub, close, done }: { sub: Subscription; close: () => void; done: () => void }) {
  const [overlap, set] = useState("24h")
  return (
    <Ask
      title="Rotate the signing secret"
      button="Rotate"
      close={close}
      does={async () => {
        const made = await change<Subscription>("POST", of(sub, "/secret/rotate"), { overlap })
        say(
          <>
            The new secret: <code class="break">{made.secret}</code>
          </>,
          false,
          true,
        )
        done()
      }}
    >
      <p class="soft">Until the overlap ends, every request is signed with both secrets: the receiver verifies with either, and nothing fails while it is updated.</p>
      <label>
        <span>The old secret goes on for</span>
        <select value={overlap} onChange={(e) => set(e.currentTarget.value)}>
          {Object.entries(overlaps).map(([id, words]) => (
            <option key={id} value={id}>
              {words}
            </option>
          ))}
        </select>
      </label>
    </Ask>
  )
}

function Address({ sub, close, done }: { sub: Subscription; close: () => void; done: () => void }) {
  const [url, set] = useState(sub.destination?.url ?? "")
  return (
    <Ask title="Change the address" button="Save" close={close} does={() => change("PATCH", of(sub), { destination: { ...sub.destination, url } }).then(done)}>
      <label>
        <span>Where events are sent</span>
        <input type="url" required value={url} onInput={(e) => set(e.currentTarget.value)} />
        <span class="hint">What waits goes to the new address at its next try.</span>
      </label>
    </Ask>
  )
}

function Rate({ sub, close, done }: { sub: Subscription; close: () => void; done: () => void }) {
  const [rate, set] = useState(String(sub.max_rate || 10))
  return (
    <Ask title="Limit the rate" button="Save" close={close} does={() => change("PATCH", of(sub), { max_rate: Number(rate) }).then(done)}>
      <label>
        <span>Events a second, tries included</span>
        <input type="number" min={0} max={100000} required value={rate} onInput={(e) => set(e.currentTarget.value)} />
        <span class="hint">0 is no limit. What is more waits in the log: nothing is lost, and no try is counted for waiting.</span>
      </label>
    </Ask>
  )
}

export const subscriptionLink = (id: string) => link("/subscriptions/" + encodeURIComponent(id))
export const attemptLink = (sub: string, id: string) => link(`/subscriptions/${encodeURIComponent(sub)}/attempts/${encodeURIComponent(id)}`)
