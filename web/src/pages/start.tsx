import { useEffect, useRef, useState } from "preact/hooks"
import { change, get, type List } from "../api"
import { Code } from "../parts/data"
import { attemptLink } from "../parts/mend"
import { sentence } from "../parts/notices"
import { State, Time, Why } from "../parts/small"
import { millis, took } from "../parts/words"
import { api, link, tenant } from "../route"
import { may } from "../session"
import type { Attempt, EventStatus, Inspected, Inspector, Subscription } from "../wire"

const name = "first steps"

interface Shown {
  event?: EventStatus
  attempt?: Attempt
  request?: Inspected
}

/** From nothing to a signed delivery that one can look at, with one press of a button. */
export function Start() {
  const [busy, setBusy] = useState(false)
  const [wrong, setWrong] = useState("")
  const [step, setStep] = useState(0)
  const [seen, show] = useState<Shown>({})
  const [spent, setSpent] = useState(0)
  const going = useRef<AbortController>(null)
  useEffect(() => () => going.current?.abort(), [])
  const send = async () => {
    setBusy(true)
    setWrong("")
    show({})
    const began = performance.now()
    const of = tenant.value
    const { signal } = (going.current = new AbortController())
    try {
      const box = await receiver(of, signal)
      setStep(1)
      const before = (await get<List<Inspected>>(api(`/inspectors/${box.inspector.id}/requests?limit=1`, of), signal)).data[0]?.id ?? ""
      const e = await change<{ id: string }>("POST", api("/events", of), { type: "order.paid", key: "order-1", data: { order: "order-1", amount: 4200, currency: "EUR" } }, signal)
      setStep(2)
      for (let i = 0; i < 100; i++) {
        const a = await get<List<Inspected>>(api(`/inspectors/${box.inspector.id}/requests?limit=1&wait=5s${before ? "&after=" + encodeURIComponent(before) : ""}`, of), signal)
        const request = a.data.find((r) => JSON.stringify(r.headers).includes(e.id))
        const status = await get<EventStatus>(api(`/events/${e.id}`, of), signal)
        const attempt = status.deliveries.find((d) => d.subscription === box.sub.id)?.attempts[0]
        show({ event: status, attempt, request })
        if (request && attempt) {
          setSpent(performance.now() - began)
          setStep(3)
          break
        }
        await new Promise((r) => setTimeout(r, 60))
      }
    } catch (e) {
      if (signal.aborted) return
      setWrong(sentence(e))
    }
    setBusy(false)
  }
  const url = `${location.origin}${api("/events")}`
  return (
    <>
      <header>
        <h1>First steps</h1>
        <span class="soft">{tenant.value}: from nothing to a signed delivery</span>
      </header>
      {may("manage") && may("publish") ? (
        <p>
          <button type="button" class="first" disabled={busy} onClick={send} data-act="r" id="send-first">
            {busy ? "On its way…" : seen.request ? "Send another" : "Send a first event"}
          </button>
        </p>
      ) : (
        <p class="soft">Your key may not append events and manage subscriptions; ask for one that may.</p>
      )}
      {wrong && (
        <Why title="That did not work">{wrong}</Why>
      )}
      <ol class="tries">
        {[
          "A receiver in this server, and a subscription that sends to it",
          "An event is appended: on disk before the answer",
          "It is signed, sent, and taken",
        ].map((what, i) => (
          <li key={what} style={{ padding: "6px 0" }}>
            <State tone={step > i ? "" : "n"}>{what}</State>
          </li>
        ))}
      </ol>
      {seen.request && seen.attempt && (
        <div role="status" id="first-delivery">
          <Why
            tone="i"
            title={`Delivered: ${seen.request.answered} in ${took(millis(seen.attempt.duration))}, ${seen.request.signature === "verified" ? "its signature verifies" : seen.request.signature}`}
            acts={
              <>
                <a class="button do" href={link("/events/" + seen.event!.id)}>
                  See the event
                </a>
                <a class="button" href={attemptLink(seen.attempt.subscription, seen.attempt.id)}>
                  See the attempt
                </a>
              </>
            }
          >
            Sequence {seen.event!.sequence}, received <Time at={seen.request.time} />; from the press of the button to here {took(spent)}.
          </Why>
          <h2>What the receiver got</h2>
          <Code text={[`${seen.request.method} ${seen.request.path}`, ...Object.entries(seen.request.headers).map(([n, v]) => `${n.toLowerCase()}: ${[v].flat().join(", ")}`), "", seen.request.body ?? ""].join("\n")} />
        </div>
      )}
      <h2>
        Do it yourself <span class="soft">EVENTHOSE_API_KEY is a key of <a class="ref" href={link("/keys")}>Keys</a>, or the admin key</span>
      </h2>
      <Code text={`curl ${url} \\\n  -H "Authorization: Bearer $EVENTHOSE_API_KEY" -H 'Content-Type: application/json' \\\n  -d '{"type": "order.paid", "key": "order-1", "data": {"amount": 4200}}'`} />
      <h2>
        Receive on your laptop <span class="soft">over an outgoing connection: no tunnel, no public address</span>
      </h2>
      <Code text={`export EVENTHOSE_URL=${location.origin} EVENTHOSE_TENANT=${tenant.value}\neventhose listen --forward-to http://localhost:3000/webhooks`} />
      <h2>
        Read the log <span class="soft">any time, from anywhere in it, through every door</span>
      </h2>
      <Code text={`curl "${url}?after=0&wait=30s" -H "Authorization: Bearer $EVENTHOSE_API_KEY"`} />
    </>
  )
}

/** The inspector of these steps with its subscription, made if they are not there. */
async function receiver(of: string, signal: AbortSignal): Promise<{ inspector: Inspector; sub: Subscription }> {
  const inspectors = await get<List<Inspector>>(api("/inspectors?limit=100", of), signal)
  const subs = await get<List<Subscription>>(api("/subscriptions?limit=1000", of), signal)
  for (const inspector of inspectors.data) {
    const sub = subs.data.find((s) => s.destination?.url === inspector.destination && s.state === "active")
    if (sub && inspector.name === name) return { inspector, sub }
  }
  const inspector = await change<Inspector>("POST", api("/inspectors", of), { name }, signal)
  const sub = await change<Subscription>("POST", api("/subscriptions", of), { name, destination: { type: "webhook", url: inspector.destination } }, signal)
  await change("PATCH", api("/inspectors/" + inspector.id, of), { secret: sub.secret }, signal)
  return { inspector, sub }
}
