import { useState } from "preact/hooks"
import { change, Problem, useGet } from "../api"
import { Code, decoded } from "../parts/data"
import { Ask } from "../parts/dialog"
import { Find } from "../parts/find"
import { More, usePages } from "../parts/more"
import { Act, say, sentence } from "../parts/notices"
import { Empty, Failed, State, Tabs, Time, Waiting, Why, type Tone } from "../parts/small"
import { bytes, capital, count, when } from "../parts/words"
import { api, go, link, params, query, setQuery, tenant } from "../route"
import { may } from "../session"
import type { InboxItem, Rejection, Source as Seen } from "../wire"

/** The doors that providers send through. */
export function Sources() {
  const list = usePages<Seen>(api("/sources?limit=100"))
  return (
    <>
      <header>
        <h1>Sources</h1>
        <span class="soft">providers whose webhooks are received here</span>
        {may("manage") && (
          <a class="button do" href={link("/sources/new")}>
            New source
          </a>
        )}
        <Find />
      </header>
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.rows.length > 0 && (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>Source</th>
                <th>Provider</th>
                <th class="wide-only">Address</th>
                <th>Made</th>
                <th>Rejected, last day</th>
              </tr>
            </thead>
            <tbody>
              {list.rows.map((s) => (
                <tr key={s.id}>
                  <td class="name">
                    <a data-row href={link("/sources/" + s.id)}>
                      {s.name || s.id}
                    </a>
                  </td>
                  <td>{s.provider}</td>
                  <td class="mono soft fit wide-only">{s.url}</td>
                  <td class="soft">
                    <Time at={s.created} />
                  </td>
                  <td>
                    <Rejected source={s.id} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <More of={list} />
      {list.next === null && !list.rows.length && (
        <Empty title="No provider sends here yet">
          A source verifies what Stripe, GitHub, Shopify and 85 others send, puts it on disk, answers 200 at once, and hands it to your workers.{" "}
          {may("manage") && (
            <a class="ref" href={link("/sources/new")}>
              Make the first
            </a>
          )}
        </Empty>
      )}
    </>
  )
}

const most = 100 // rejected requests that a source keeps

const rejections = (n: number) => count(n) + (n < most ? "" : " or more")

function Rejected({ source }: { source: string }) {
  const all = useGet<{ data: Rejection[] }>(api(`/sources/${source}/rejections`)).data?.data
  if (!all) return <span class="faint">–</span>
  return all.length ? (
    <a class="bad" href={link(`/sources/${source}?tab=rejected`)}>
      {rejections(all.length)}
    </a>
  ) : (
    <span class="faint">none</span>
  )
}

interface Provider {
  name: string
  title: string
  signs: string
  document: string
  needs: { setting: string; required: boolean; what: string }[]
}

/** The settings that are written as JSON, with an example of each. */
const asJSON: Record<string, string> = {
  scheme: '{\n  "header": "X-Signature",\n  "prefix": "sha256=",\n  "content": "{body}",\n  "hash": "sha256"\n}',
  naming: '{\n  "id": ["json:id"],\n  "type": ["json:type"]\n}',
}

/** What a field that takes JSON says; undefined if nothing. Throws Problem with the field. */
function parsed(name: string, text: string): unknown {
  try {
    return text ? JSON.parse(text) : undefined
  } catch (e) {
    throw new Problem(0, "invalid", `is not JSON: ${(e as Error).message}`, name)
  }
}

export function NewSource() {
  const [provider, setProvider] = useState("stripe")
  const [wrong, setWrong] = useState<unknown>()
  const [busy, setBusy] = useState(false)
  const providers = useGet<{ data: Provider[] }>("/v1/providers").data?.data ?? []
  const p = providers.find((p) => p.name === provider)
  const need = (setting: string) => p?.needs.find((n) => n.setting === setting)
  const at = wrong instanceof Problem ? Object.keys(asJSON).find((name) => need("scheme") && (wrong.field === name || wrong.field.startsWith(name + "."))) : undefined
  const options = p?.needs.filter((n) => n.setting.startsWith("options.")) ?? []
  const submit = async (e: SubmitEvent) => {
    e.preventDefault()
    const f = new FormData(e.currentTarget as HTMLFormElement)
    const said = (n: string) => String(f.get(n) ?? "").trim()
    const of = tenant.value
    setBusy(true)
    setWrong(undefined)
    try {
      const chosen = Object.fromEntries(options.map((n) => [n.setting.slice("options.".length), said(n.setting)]).filter(([, v]) => v))
      const made = await change<Seen>("POST", api("/sources", of), {
        provider: said("provider"),
        name: said("name") || undefined,
        secret: said("secret") || undefined,
        public_key: said("public_key") || undefined,
        verify_token: said("verify_token") || undefined,
        public_url: said("public_url") || undefined,
        options: Object.keys(chosen).length ? chosen : undefined,
        scheme: parsed("scheme", said("scheme")),
        naming: parsed("naming", said("naming")),
      })
      go(link(`/sources/${made.id}`, of))
    } catch (e) {
      setWrong(e)
    }
    setBusy(false)
  }
  return (
    <>
      <p class="crumb">
        <a href={link("/sources")}>Sources</a>
      </p>
      <header>
        <h1>New source</h1>
      </header>
      <form class="set" onSubmit={submit}>
        <label>
          <span>Provider</span>
          <input name="provider" list="providers" required value={provider} onInput={(e) => setProvider(e.currentTarget.value.trim())} autocomplete="off" />
          <datalist id="providers">
            {providers.map((p) => (
              <option key={p.name} value={p.name}>
                {p.title}
              </option>
            ))}
          </datalist>
          <span class="hint">{p ? <>{p.signs}. <a class="ref" href={p.document} target="_blank" rel="noreferrer">{p.title} says so</a></> : "generic takes any HMAC in a header; inspect takes anything, to look at it."}</span>
        </label>
        <label>
          <span>Name</span>
          <input name="name" />
        </label>
        {(!p || need("secrets")) && (
          <label>
            <span>Signing secret</span>
            <input name="secret" type="password" autocomplete="off" spellcheck={false} />
            <span class="hint">{need("secrets")?.what ?? "as the provider shows it"}</span>
          </label>
        )}
        {(!p || need("public_keys")) && (
          <label>
            <span>Public key</span>
            <textarea name="public_key" rows={2} />
            <span class="hint">{need("public_keys")?.what ?? "of providers that sign with a private key"}</span>
          </label>
        )}
        {(!p || need("verify_token")) && (
          <label>
            <span>Verify token</span>
            <input name="verify_token" type="password" autocomplete="off" />
            <span class="hint">{need("verify_token")?.what ?? "what some providers show when they try the address"}</span>
          </label>
        )}
        {need("scheme") && (
          <>
            <label>
              <span>Scheme</span>
              <textarea name="scheme" rows={6} required placeholder={asJSON.scheme} spellcheck={false} aria-invalid={at === "scheme"} />
              {at === "scheme" && <Wrong what={wrong} />}
              <span class="hint">{need("scheme")!.what}; written as JSON</span>
            </label>
            <label>
              <span>Naming</span>
              <textarea name="naming" rows={4} placeholder={asJSON.naming} spellcheck={false} aria-invalid={at === "naming"} />
              {at === "naming" && <Wrong what={wrong} />}
              <span class="hint">where id, type, key and time of an event stand, written as JSON; left out, id and type are taken from the body where they usually stand</span>
            </label>
          </>
        )}
        {options.map((n) => (
          <label key={n.setting}>
            <span>{n.setting.slice("options.".length)}</span>
            <input name={n.setting} required={n.required} />
            <span class="hint">{n.what}</span>
          </label>
        ))}
        {(!p || need("public_url")) && (
          <label>
            <span>Public address</span>
            <input name="public_url" type="url" placeholder="https://hooks.example.com/in/…" />
            <span class="hint">{need("public_url")?.what ?? "for providers that sign the address that they send to"}. It can be given later, once the address is known.</span>
          </label>
        )}
        {wrong !== undefined && !at && <Wrong what={wrong} />}
        <div>
          <button class="first" disabled={busy}>
            Make the source
          </button>
        </div>
      </form>
    </>
  )
}

const Wrong = ({ what }: { what: unknown }) => (
  <span class="wrong" role="alert">
    {sentence(what)}
  </span>
)

const inboxTones: Record<InboxItem["status"], Tone> = { pending: "p", processed: "", failed: "w", dead: "b" }

/** One source: its address, its inbox, and what it has rejected. */
export function Source({ at: [id = ""] }: { at: string[] }) {
  const of = api("/sources/" + encodeURIComponent(id))
  const got = useGet<Seen>(of)
  const rejected = useGet<{ data: Rejection[] }>(of + "/rejections", 5000)
  const tab = query.value.get("tab") ?? "inbox"
  const [asking, ask] = useState("")
  if (got.error) return <Failed error={got.error} again={got.reload} />
  const s = got.data
  if (!s) return <Waiting />
  const n = rejected.data?.data.length ?? 0
  const all = link("/sources")
  return (
    <>
      <p class="crumb">
        <a href={link("/sources")}>Sources</a>
      </p>
      <header>
        <h1>{s.name || s.provider}</h1>
        <span class="soft">{s.provider}</span>
        <span class="id soft break">{s.id}</span>
        <span class="end row">
          <a class="button" href={link("/subscriptions/" + s.subscription)}>
            Its workers' lane
          </a>
          {may("manage") && s.provider !== "inspect" && (
            <button type="button" onClick={() => ask("secret")}>
              Change the secret…
            </button>
          )}
          {may("manage") && (
            <button type="button" class="danger" onClick={() => ask("delete")}>
              Delete…
            </button>
          )}
        </span>
      </header>
      <p class="soft">Give {s.provider} this address:</p>
      <Code text={s.url} />
      {n > 0 && tab !== "rejected" && (
        <div style={{ marginTop: "16px" }}>
          <Why
            title={`${rejections(n)} ${n === 1 ? "request was" : "requests were"} rejected in the last day`}
            acts={
              <button type="button" class="do" onClick={() => setQuery({ tab: "rejected" })}>
                See why
              </button>
            }
          >
            The last: {rejected.data!.data[0]!.detail}
          </Why>
        </div>
      )}
      <div style={{ marginTop: "24px" }}>
        <Tabs names={[["inbox", "Inbox"], ["rejected", `Rejected${n ? " " + rejections(n) : ""}`]]} at={tab} to={(t) => setQuery({ tab: t === "inbox" ? "" : t, status: "" })} />
      </div>
      {tab === "rejected" ? <RejectedList source={s} list={rejected.data?.data} /> : <Inbox source={s.id} />}
      {asking === "secret" && <ChangeSecret of={of} close={() => ask("")} done={got.reload} />}
      {asking === "delete" && (
        <Ask title="Delete the source" button="Delete" danger close={() => ask("")} does={() => change("DELETE", of).then(() => go(all))}>
          <p class="soft">Its address answers 404 from then on, and its inbox goes with it. The events that came through it stay in the log.</p>
        </Ask>
      )}
    </>
  )
}

function ChangeSecret({ of, close, done }: { of: string; close: () => void; done: () => void }) {
  const [secret, set] = useState(""), [keep, setKeep] = useState(true)
  return (
    <Ask title="Change the secret" button="Save" close={close} does={() => change("PATCH", of, { secrets: keep ? [secret, "***"] : [secret] }).then(() => (say("From now on it is verified with the new secret."), done()))}>
      <label>
        <span>The new secret</span>
        <input type="password" required value={secret} autocomplete="off" onInput={(e) => set(e.currentTarget.value)} />
      </label>
      <label class="pick row">
        <input type="checkbox" checked={keep} onChange={(e) => setKeep(e.currentTarget.checked)} />
        <span>Take the old one too, until this is changed again</span>
      </label>
    </Ask>
  )
}

function Inbox({ source }: { source: string }) {
  const status = query.value.get("status") ?? ""
  const list = usePages<InboxItem>(api("/inbox" + params({ source, status, limit: 100 })))
  return (
    <>
      <div class="filters">
        <label>
          State
          <select value={status} onChange={(e) => setQuery({ status: e.currentTarget.value })}>
            <option value="">any</option>
            <option value="pending">pending</option>
            <option value="processed">processed</option>
            <option value="failed">failed: will be handed out again</option>
            <option value="dead">dead: needs a person</option>
          </select>
        </label>
        <button type="button" data-act="r" onClick={list.reload}>
          Look again
        </button>
      </div>
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.rows.length > 0 && (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>Received</th>
                <th>Topic</th>
                <th>State</th>
                <th class="wide-only">Provider's id</th>
                <th class="wide-only">Processed</th>
                <th class="num">Attempts</th>
                <th class="wide-only">Last error</th>
              </tr>
            </thead>
            <tbody>
              {list.rows.map((i) => (
                <tr key={i.sequence}>
                  <td class="soft">
                    <Time at={i.received} />
                  </td>
                  <td class="name">
                    <a data-row href={link(`/events/${encodeURIComponent(i.event)}?source=${i.source}`)}>
                      {i.topic}
                    </a>
                  </td>
                  <td>
                    <State tone={inboxTones[i.status]}>{i.status}</State>
                  </td>
                  <td class="mono soft wide-only">{i.event}</td>
                  <td class="soft wide-only">{i.processed ? <Time at={i.processed} /> : "–"}</td>
                  <td class="num">{count(i.attempts)}</td>
                  <td class="soft fit wide-only">{i.last_error}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <More of={list} name="Later" />
      {list.next === null && !list.rows.length && <Empty title="Nothing is in the inbox">{status ? "None is in that state." : "What the provider sends appears here, oldest first, and what your workers made of it."}</Empty>}
    </>
  )
}

function RejectedList({ source, list }: { source: Seen; list?: Rejection[] }) {
  if (!list) return <Waiting />
  if (!list.length) return <Empty title="Nothing was rejected in the last day">Requests whose signature, time or headers do not verify are kept here for a day, with the reason.</Empty>
  return (
    <div class="scroll" tabindex={0}>
      <table>
        <thead>
          <tr>
            <th>Received</th>
            <th>Why</th>
            <th class="wide-only">In words</th>
            <th class="num wide-only">Size</th>
          </tr>
        </thead>
        <tbody>
          {list.map((r) => (
            <tr key={r.id}>
              <td class="soft">
                <a data-row href={link(`/sources/${source.id}/rejections/${r.id}`)}>
                  <Time at={r.received} />
                </a>
              </td>
              <td>
                <State tone="b">{r.reason}</State>
              </td>
              <td class="soft fit wide-only" title={r.detail}>
                {r.detail}
              </td>
              <td class="num wide-only">{bytes(r.size)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

/** A rejected request: why, what came, and another try once the secret is mended. */
export function OneRejection({ at: [source = "", id = ""] }: { at: string[] }) {
  const of = api(`/sources/${encodeURIComponent(source)}`)
  const got = useGet<Rejection>(`${of}/rejections/${encodeURIComponent(id)}`)
  if (got.error) return <Failed error={got.error} again={got.reload} />
  const r = got.data
  if (!r) return <Waiting />
  const q = r.request
  return (
    <>
      <p class="crumb">
        <a href={link("/sources")}>Sources</a> · <a href={link("/sources/" + source)}>{source}</a> · <a href={link(`/sources/${source}?tab=rejected`)}>rejected</a>
      </p>
      <header>
        <h1>
          <State tone="b">{r.reason}</State>
        </h1>
        <span class="soft">{when(r.received)}</span>
      </header>
      <Why
        title={capital(r.detail)}
        acts={
          may("manage") && (
            <Act
              kind="do"
              act="r"
              label="Verify it again"
              does={async () => {
                const home = tenant.value
                const p = await change<{ id: string }>("POST", `${of}/rejections/${r.id}/retry`)
                go(link(`/events/${encodeURIComponent(p.id)}?source=${source}`, home))
                return "It verifies now, and is in the log."
              }}
            />
          )
        }
      >
        If the secret of the source was wrong, change it and verify this request again: it is appended as if it had come now. The provider was only told 401.
      </Why>
      <div class="two" style={{ marginTop: "24px" }}>
        <section>
          <dl>
            <dt>Request</dt>
            <dd class="mono">
              {r.method} /in/{source}
              {q?.query ? "?" + q.query : ""}
            </dd>
            <dt>Size</dt>
            <dd>{bytes(r.size)}</dd>
            {Object.entries(q?.header ?? {}).map(([name, values]) => (
              <>
                <dt class="mono">{name}</dt>
                <dd class="mono">{[values].flat().join(", ")}</dd>
              </>
            ))}
          </dl>
        </section>
        <section>
          {q?.body ? <Code text={decoded(q.body)} /> : <p class="faint">It had no body.</p>}
          {q?.truncated && <p class="soft">The body was longer; this is its beginning, so the request cannot be verified again.</p>}
        </section>
      </div>
    </>
  )
}
