import { useState } from "preact/hooks"
import { change } from "../api"
import { Code } from "../parts/data"
import { Ask, Once } from "../parts/dialog"
import { More, usePages } from "../parts/more"
import { Act } from "../parts/notices"
import { Empty, Failed, State, Time } from "../parts/small"
import { api, params, tenant } from "../route"
import { may, operator } from "../session"
import type { Key, PortalLink } from "../wire"

const scopes: [string, string][] = [
  ["publish", "append events"],
  ["read", "read events, subscriptions, attempts and what is parked"],
  ["manage", "make and change subscriptions and sources; replay, redrive, discard, erase"],
  ["admin", "everything, keys included"],
]

const expiries: [string, string][] = [
  ["", "never"],
  ["24", "in a day"],
  ["720", "in 30 days"],
  ["8760", "in a year"],
]

/** API keys, of the tenant that is shown or of all. */
export function Keys() {
  const of = tenant.value
  const allowed = of === "" ? operator() : may("admin")
  const list = usePages<Key>(allowed ? "/v1/keys" + params({ tenant: of, limit: 100 }) : null)
  const [asking, ask] = useState(false)
  const [made, setMade] = useState("")
  const [chosen, choose] = useState(new Set(["publish", "read"]))
  const [name, setName] = useState(""), [hours, setHours] = useState("")
  const toggle = (s: string) => choose((old) => (old.has(s) ? new Set([...old].filter((x) => x !== s)) : new Set([...old, s])))
  return (
    <>
      <header>
        <h1>Keys</h1>
        <span class="soft">{of === "" ? "of all tenants" : "that may touch " + of}</span>
        {allowed && (
          <button type="button" class="do" onClick={() => ask(true)}>
            New key…
          </button>
        )}
      </header>
      {!allowed && <Empty title="Only admins see keys">Sign in with a key that has the scope admin.</Empty>}
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.rows.length > 0 && (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>Key</th>
                {of === "" && <th>Tenant</th>}
                <th>Scopes</th>
                <th>State</th>
                <th class="wide-only">Made</th>
                <th class="wide-only">Last used</th>
                <th />
              </tr>
            </thead>
            <tbody>
              {list.rows.map((k) => {
                const over = k.revoked ? "revoked" : k.expires && new Date(k.expires) < new Date() ? "expired" : ""
                return (
                  <tr key={k.id}>
                    <td class="name">
                      {k.name || <span class="mono">{k.id}</span>} {k.name && <span class="mono faint">{k.id}</span>}
                    </td>
                    {of === "" && <td>{k.tenant || "all"}</td>}
                    <td>
                      {k.scopes.map((s) => (
                        <span key={s} class={"tag" + (s === "admin" ? " w" : "")} style={{ marginRight: "4px" }}>
                          {s}
                        </span>
                      ))}
                    </td>
                    <td>
                      <State tone={over ? "p" : ""}>{over || (k.expires ? <>until <Time at={k.expires} /></> : "good")}</State>
                    </td>
                    <td class="soft wide-only">
                      <Time at={k.created} />
                    </td>
                    <td class="soft wide-only">{k.last_used ? <Time at={k.last_used} since /> : "–"}</td>
                    <td>{!k.revoked && <Act kind="danger" label="Revoke" does={() => change("DELETE", "/v1/keys/" + k.id).then(list.reload)} done="It opens nothing any more." />}</td>
                  </tr>
                )
              })}
            </tbody>
          </table>
        </div>
      )}
      <More of={list} />
      {list.next === null && !list.rows.length && <Empty title="No key was made">Programs come in with keys; each has a name, scopes, and if you like an end.</Empty>}
      {asking && (
        <Ask
          title={of === "" ? "New key for all tenants" : "New key for " + of}
          button="Make it"
          disabled={!chosen.size}
          close={() => ask(false)}
          does={async () => {
            const k = await change<{ key: string }>("POST", "/v1/keys", { name: name || undefined, tenant: of || undefined, scopes: [...chosen], expires: hours ? new Date(Date.now() + Number(hours) * 36e5).toISOString() : undefined })
            setMade(k.key)
            list.reload()
          }}
        >
          <label>
            <span>Name</span>
            <input value={name} maxLength={100} placeholder="checkout service" onInput={(e) => setName(e.currentTarget.value)} />
          </label>
          <fieldset>
            <legend>It may</legend>
            {scopes.map(([s, does]) => (
              <label class="pick" key={s}>
                <input type="checkbox" checked={chosen.has(s)} onChange={() => toggle(s)} />
                <span>
                  {s} <span class="hint">{does}</span>
                </span>
              </label>
            ))}
          </fieldset>
          <label>
            <span>It ends</span>
            <select value={hours} onChange={(e) => setHours(e.currentTarget.value)}>
              {expiries.map(([h, words]) => (
                <option key={h} value={h}>
                  {words}
                </option>
              ))}
            </select>
          </label>
        </Ask>
      )}
      {made && (
        <Once title="The key" text={made} close={() => setMade("")}>
          It is shown this once. Put it where the program finds it.
        </Once>
      )}
    </>
  )
}

const capabilities: [string, string][] = [
  ["view", "subscriptions, attempts without bodies, events without data, charts"],
  ["data", "the data of events, and what receivers answered"],
  ["manage", "make, change, pause and delete subscriptions"],
  ["secrets", "reveal and rotate signing secrets"],
  ["replay", "replay, redrive, discard, send again"],
  ["test", "send test events"],
]

/** Links that let a customer see and mend what is theirs, and nothing else. */
export function PortalLinks() {
  const list = usePages<PortalLink>(may("admin") ? api("/portal-links?limit=100") : null)
  const [asking, ask] = useState(false)
  const [made, setMade] = useState<PortalLink>()
  const [chosen, choose] = useState(new Set(["view", "data", "manage", "replay", "test"]))
  const [name, setName] = useState(""), [until, setUntil] = useState("1h")
  const toggle = (s: string) => s !== "view" && choose((old) => (old.has(s) ? new Set([...old].filter((x) => x !== s)) : new Set([...old, s])))
  return (
    <>
      <header>
        <h1>Portal links</h1>
        <span class="soft">for a customer: these pages, cut down to what is theirs</span>
        {may("admin") && (
          <button type="button" class="do" onClick={() => ask(true)}>
            New link…
          </button>
        )}
      </header>
      {!may("admin") && <Empty title="Only admins make links">Sign in with a key that has the scope admin.</Empty>}
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.rows.length > 0 && (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>Link</th>
                <th>It opens</th>
                <th>Until</th>
                <th />
              </tr>
            </thead>
            <tbody>
              {list.rows.map((l) => (
                <tr key={l.id}>
                  <td class="name">{l.name || <span class="mono">{l.id}</span>}</td>
                  <td>
                    {l.capabilities.map((c) => (
                      <span key={c} class={"tag" + (c === "secrets" ? " w" : "")} style={{ marginRight: "4px" }}>
                        {c}
                      </span>
                    ))}
                  </td>
                  <td class="soft">
                    <Time at={l.expires} since />
                  </td>
                  <td>
                    <Act kind="danger" label="Revoke" does={() => change("DELETE", api("/portal-links/" + l.id)).then(list.reload)} done="It opens nothing any more." />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <More of={list} />
      {list.next === null && !list.rows.length && (
        <Empty title="No link is good now">
          Your application makes one for a customer with a single call, and shows the portal in a page of its own:
          <Code text={`curl ${location.origin}${api("/portal-links")} -H "Authorization: Bearer $EVENTHOSE_API_KEY" \\\n  -H 'Content-Type: application/json' -d '{"capabilities": ["view", "manage"], "expires_in": "1h"}'\n\n<script type="module" src="${location.origin}/ui/eventhose-portal.js"></script>\n<eventhose-portal token="ehp_…"></eventhose-portal>`} />
        </Empty>
      )}
      {asking && (
        <Ask
          title="New portal link"
          button="Make it"
          close={() => ask(false)}
          does={async () => {
            setMade(await change<PortalLink>("POST", api("/portal-links"), { name: name || undefined, capabilities: [...chosen], expires_in: until }))
            list.reload()
          }}
        >
          <label>
            <span>For whom</span>
            <input value={name} maxLength={100} onInput={(e) => setName(e.currentTarget.value)} />
          </label>
          <fieldset>
            <legend>It opens</legend>
            {capabilities.map(([s, does]) => (
              <label class="pick" key={s}>
                <input type="checkbox" checked={chosen.has(s)} disabled={s === "view"} onChange={() => toggle(s)} />
                <span>
                  {s} <span class="hint">{does}</span>
                </span>
              </label>
            ))}
          </fieldset>
          <label>
            <span>For</span>
            <select value={until} onChange={(e) => setUntil(e.currentTarget.value)}>
              <option value="15m">15 minutes</option>
              <option value="1h">1 hour</option>
              <option value="24h">1 day</option>
              <option value="720h">30 days</option>
            </select>
          </label>
        </Ask>
      )}
      {made && (
        <Once title="The link" text={made.url ?? ""} close={() => setMade(undefined)}>
          Whoever has it sees this tenant until it ends or is revoked. It is shown this once.
        </Once>
      )}
    </>
  )
}
