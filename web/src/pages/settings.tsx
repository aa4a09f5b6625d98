import { useState } from "preact/hooks"
import { change } from "../api"
import { pull } from "../parts/condition"
import { Ask } from "../parts/dialog"
import { say, sentence } from "../parts/notices"
import { Choice } from "../parts/small"
import { some, span, took, millis } from "../parts/words"
import { api } from "../route"
import { may } from "../session"
import type { Subscription } from "../wire"

/** How a subscription is set. Each choice says what it costs. */
export function Settings({ sub: s, done, gone }: { sub: Subscription; done: () => void; gone: () => void }) {
  const [wrong, setWrong] = useState("")
  const [busy, setBusy] = useState(false)
  const [deleting, remove] = useState(false)
  const [batched, batch] = useState((s.batch?.max_events ?? 0) > 1)
  const of = api("/subscriptions/" + s.id)
  const manage = may("manage", "manage")
  const filters = manage && !s.source // a source says what its lane gets
  const schedule = s.retry.schedule ?? []
  const submit = async (e: SubmitEvent) => {
    e.preventDefault()
    const f = new FormData(e.currentTarget as HTMLFormElement)
    const said = (n: string) => String(f.get(n) ?? "").trim()
    const list = (n: string) => said(n).split(/[\s,]+/).filter(Boolean)
    const lines = (n: string) => String(f.get(n) ?? "").split(/\r?\n/).filter(Boolean)
    const headers = Object.fromEntries(
      said("headers")
        .split("\n")
        .map((l) => l.split(/:\s*(.*)/s))
        .filter(([n]) => n?.trim())
        .map(([n, v]) => [n!.trim(), (v ?? "").trim()]),
    )
    setBusy(true)
    setWrong("")
    try {
      await change("PATCH", of, {
        name: said("name"),
        filter: s.source ? undefined : { ...s.filter, types: list("types"), keys: lines("keys"), expression: said("expression").replaceAll("\r\n", "\n") || undefined },
        ordering: said("ordering"),
        on_exhausted: said("on_exhausted"),
        max_rate: Number(said("max_rate") || 0),
        ...(pull(s)
          ? {}
          : {
              max_in_flight: Number(said("max_in_flight")),
              batch: batched ? { max_events: Number(said("max_events")), max_bytes: Number(said("max_bytes")), max_wait: said("max_wait") } : { max_events: 1, max_bytes: 1048576 },
              destination: { ...s.destination, url: said("url"), headers, format: said("format") === "standard" ? undefined : said("format"), compression: said("compression") || undefined },
            }),
        retry: { ...s.retry, schedule: list("schedule"), timeout: said("timeout") || s.retry.timeout },
      })
      say("Saved. It holds from the next attempt on.")
      done()
    } catch (e) {
      setWrong(sentence(e))
    }
    setBusy(false)
  }
  return (
    <>
    <form class="set" onSubmit={submit} data-updated={s.updated}>
      <label>
        <span>Name</span>
        <input name="name" defaultValue={s.name} maxLength={256} disabled={!manage} />
      </label>
      {!pull(s) && (
        <label>
          <span>Address</span>
          <input name="url" type="url" required defaultValue={s.destination!.url} disabled={!manage} />
        </label>
      )}
      <label>
        <span>Types</span>
        <input name="types" class="mono" defaultValue={s.filter?.types?.join(", ")} placeholder="all types" disabled={!filters} />
        <span class={s.filter?.types?.length ? "hint" : "hint warn"}>{s.filter?.types?.length ? "Separated by commas; order.* is a prefix." : "All types: whatever is added later is sent too."}</span>
      </label>
      <label>
        <span>Keys</span>
        <textarea name="keys" class="mono" rows={2} defaultValue={s.filter?.keys?.join("\n")} placeholder="any" disabled={!filters} />
        <span class="hint">One a line; a key may hold spaces and commas.</span>
      </label>
      <label>
        <span>Only if</span>
        <textarea name="expression" class="mono" rows={2} defaultValue={s.filter?.expression} placeholder="data.amount > 100" disabled={!filters} />
        <span class="hint">CEL over type, key, attributes and data. Its cost is limited and charged to this tenant.</span>
      </label>
      <fieldset disabled={!manage}>
        <legend>Order</legend>
        {(
          [
            ["none", "None", "a failed event waits alone; everything else goes on, in parallel"],
            ["key", "Within a key", "later events of a key wait behind a failed one; other keys go on, at full speed"],
            ["strict", "Strict", "one request at a time, and one failed event holds everything behind it"],
          ] as const
        ).map(([id, name, trade]) => (
          <label class="pick" key={id}>
            <input type="radio" name="ordering" value={id} defaultChecked={s.ordering === id} />
            <span>
              {name} <span class="hint">{trade}</span>
            </span>
          </label>
        ))}
      </fieldset>
      <fieldset disabled={!manage}>
        <legend>When the last try has failed</legend>
        {(
          [
            ["park", "Set it aside as dead and go on", "nothing behind it waits; a person redrives or discards it"],
            ["block", "Hold what is ordered behind it", "nothing overtakes it, and its key or lane stands until a person decides"],
          ] as const
        ).map(([id, name, trade]) => (
          <label class="pick" key={id}>
            <input type="radio" name="on_exhausted" value={id} defaultChecked={s.on_exhausted === id} />
            <span>
              {name} <span class="hint">{trade}</span>
            </span>
          </label>
        ))}
      </fieldset>
      <label>
        <span>Waits before each try</span>
        <textarea name="schedule" rows={2} defaultValue={schedule.map(short).join(", ")} disabled={!manage} />
        <span class="hint">
          {some(schedule.length, "try", "tries")} over {took(schedule.reduce((n, d) => n + millis(d), 0))}, and up to a tenth more for jitter.
        </span>
      </label>
      {!pull(s) && (
        <>
          <label>
            <span>Time-out</span>
            <input name="timeout" defaultValue={short(s.retry.timeout ?? "")} disabled={!manage} />
            <span class="hint">From connect to the end of the answer, at most 30s. Now {span(s.retry.timeout)}: a longer one lets slow receivers finish, and each holds a place in flight as long.</span>
          </label>
          <label>
            <span>In flight at most</span>
            <input name="max_in_flight" type="number" min={1} max={64} defaultValue={String(s.max_in_flight ?? 64)} disabled={!manage} />
            <span class="hint">How many requests at once. It is lowered by itself while the receiver struggles.</span>
          </label>
        </>
      )}
      <label>
        <span>Events a second at most</span>
        <input name="max_rate" type="number" min={0} max={100000} defaultValue={String(s.max_rate ?? 0)} disabled={!manage} />
        <span class="hint">0 is no limit. What is more waits in the log.</span>
      </label>
      {!pull(s) && (
        <>
          <fieldset disabled={!manage}>
            <legend>Batches</legend>
            <label class="pick">
              <input type="checkbox" checked={batched} onChange={(e) => batch(e.currentTarget.checked)} />
              <span>
                Send several events in a request <span class="hint">far cheaper for both sides; the receiver may say which it did not take, and only those are tried again</span>
              </span>
            </label>
            {batched && (
              <div class="row">
                <label class="field">
                  <span>Events</span>
                  <input name="max_events" type="number" min={2} max={1000} defaultValue={String(Math.max(2, s.batch?.max_events ?? 100))} />
                </label>
                <label class="field">
                  <span>Bytes</span>
                  <input name="max_bytes" type="number" min={1024} max={8388608} defaultValue={String(s.batch?.max_bytes ?? 1048576)} />
                </label>
                <label class="field">
                  <span>Wait for more</span>
                  <input name="max_wait" size={6} defaultValue={s.batch?.max_wait ?? "0s"} />
                </label>
              </div>
            )}
          </fieldset>
          <label>
            <span>Body</span>
            <Choice name="format" value={s.destination!.format || "standard"} disabled={!manage}>
              <option value="standard">Eventhose: type, timestamp, data, id, sequence</option>
              <option value="cloudevents">CloudEvents 1.0, structured</option>
            </Choice>
          </label>
          <label>
            <span>Compression</span>
            <Choice name="compression" value={s.destination!.compression ?? ""} disabled={!manage}>
              <option value="">none</option>
              <option value="gzip">gzip: the receiver must unpack before it parses, and verify before it was packed</option>
            </Choice>
          </label>
          <label>
            <span>Headers of your own</span>
            <textarea name="headers" rows={3} disabled={!manage} defaultValue={Object.entries(s.destination!.headers ?? {}).map(([n, v]) => `${n}: ${v}`).join("\n")} placeholder="Authorization: Bearer …" />
            <span class="hint">One a line. Values are kept as secrets: *** leaves one as it is.</span>
          </label>
        </>
      )}
      {wrong && (
        <p class="wrong" role="alert">
          {wrong}
        </p>
      )}
      {manage && (
        <p class="row">
          <button class="first" disabled={busy}>
            Save
          </button>
          {!s.source && (
            <button type="button" class="danger end" onClick={() => remove(true)}>
              Delete…
            </button>
          )}
        </p>
      )}
    </form>
    {deleting && <Delete sub={s} of={of} close={() => remove(false)} gone={gone} />}
    </>
  )
}

/** 2h0m0s is 2h */
const short = (d: string) => d.replace(/([hm])0s$/, "$1").replace(/h0m$/, "h")

function Delete({ sub, of, close, gone }: { sub: Subscription; of: string; close: () => void; gone: () => void }) {
  const [typed, type] = useState("")
  const name = sub.name || sub.id
  return (
    <Ask title="Delete the subscription" button="Delete" danger disabled={typed !== name} close={close} does={() => change("DELETE", of).then(gone)}>
      <p class="soft">Its cursor, its attempts and what is parked go with it. The events stay in the log. To hold it for a while, pause it instead.</p>
      <label>
        <span>
          Type <code>{name}</code>
        </span>
        <input value={typed} onInput={(e) => type(e.currentTarget.value)} autocomplete="off" />
      </label>
    </Ask>
  )
}
