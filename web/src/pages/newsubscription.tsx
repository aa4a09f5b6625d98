import { useState } from "preact/hooks"
import { change } from "../api"
import { Code } from "../parts/data"
import { subscriptionLink } from "../parts/mend"
import { sentence } from "../parts/notices"
import { Why } from "../parts/small"
import { api, link, tenant } from "../route"
import { may } from "../session"
import type { Subscription } from "../wire"

/** A subscription in three questions: which events, where to, and since when. */
export function NewSubscription() {
  const [kind, setKind] = useState<"webhook" | "inspector" | "pull">("webhook")
  const [wrong, setWrong] = useState("")
  const [busy, setBusy] = useState(false)
  const [made, setMade] = useState<Subscription>()
  if (made) return <Made sub={made} />
  const submit = async (e: SubmitEvent) => {
    e.preventDefault()
    const f = new FormData(e.currentTarget as HTMLFormElement)
    const said = (n: string) => String(f.get(n) ?? "").trim()
    const of = tenant.value
    setBusy(true)
    setWrong("")
    try {
      const url = kind === "inspector" ? (await change<{ destination: string }>("POST", api("/inspectors", of), { name: said("name") || "inspector" })).destination : said("url")
      const types = said("types").split(/[\s,]+/).filter(Boolean)
      setMade(
        await change<Subscription>("POST", api("/subscriptions", of), {
          name: said("name") || undefined,
          filter: { types: types.length ? types : undefined, expression: said("expression") || undefined },
          ordering: said("ordering"),
          from: said("from"),
          destination: kind === "pull" ? undefined : { type: "webhook", url },
        }),
      )
    } catch (e) {
      setWrong(sentence(e))
    }
    setBusy(false)
  }
  return (
    <>
      <p class="crumb">
        <a href={link("/subscriptions")}>Subscriptions</a>
      </p>
      <header>
        <h1>New subscription</h1>
      </header>
      <form class="set" onSubmit={submit}>
        <label>
          <span>Name</span>
          <input name="name" maxLength={256} placeholder="billing" />
        </label>
        <label>
          <span>Which events</span>
          <input name="types" class="mono" placeholder="order.paid, invoice.*" />
          <span class="hint">Types, or prefixes with .*, separated by commas. Empty means all types.</span>
        </label>
        <label>
          <span>Only if (optional)</span>
          <input name="expression" class="mono" placeholder='data.amount > 100 && attributes.region == "eu"' />
          <span class="hint">CEL over type, key, attributes and data.</span>
        </label>
        <fieldset>
          <legend>Where to</legend>
          <label class="pick">
            <input type="radio" name="kind" checked={kind === "webhook"} onChange={() => setKind("webhook")} />
            <span>
              A webhook <span class="hint">signed requests to an address of yours</span>
            </span>
          </label>
          {may("manage") && (
            <label class="pick">
              <input type="radio" name="kind" checked={kind === "inspector"} onChange={() => setKind("inspector")} />
              <span>
                An inspector <span class="hint">a receiver in this server, to look at what is sent before there is an address</span>
              </span>
            </label>
          )}
          <label class="pick">
            <input type="radio" name="kind" checked={kind === "pull"} onChange={() => setKind("pull")} />
            <span>
              Workers <span class="hint">they ask for events and answer them: no address, also from within a closed network</span>
            </span>
          </label>
        </fieldset>
        {kind === "webhook" && (
          <label>
            <span>Address</span>
            <input name="url" type="url" required placeholder="https://example.com/webhooks" />
          </label>
        )}
        <fieldset>
          <legend>Order</legend>
          {(
            [
              ["none", "No order", "fastest: a failed event is tried again by itself while others go on"],
              ["key", "Order within a key", "events of one key wait for each other, others go on"],
              ["strict", "Strict order", "one failed event holds everything behind it"],
            ] as const
          ).map(([id, name, trade]) => (
            <label class="pick" key={id}>
              <input type="radio" name="ordering" value={id} defaultChecked={id === "none"} />
              <span>
                {name} <span class="hint">{trade}</span>
              </span>
            </label>
          ))}
        </fieldset>
        <label>
          <span>Since when</span>
          <select name="from">
            <option value="now">from now on</option>
            <option value="start">from the first event that the log still has</option>
          </select>
        </label>
        {wrong && (
          <p class="wrong" role="alert">
            {wrong}
          </p>
        )}
        <div>
          <button class="first" disabled={busy}>
            Subscribe
          </button>
        </div>
      </form>
    </>
  )
}

function Made({ sub }: { sub: Subscription }) {
  return (
    <>
      <header>
        <h1>{sub.name || sub.id} is subscribed</h1>
      </header>
      {sub.secret && (
        <>
          <Why tone="i" title="The receiver verifies requests with this secret">
            Put it where the receiver finds it. It can be shown again on the subscription's page.
          </Why>
          <Code text={sub.secret} />
        </>
      )}
      <p class="more">
        <a class="button first" href={subscriptionLink(sub.id)}>
          Go to it
        </a>
        <a class="button" href={link("/subscriptions")}>
          All subscriptions
        </a>
      </p>
    </>
  )
}
