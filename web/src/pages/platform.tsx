import { useState } from "preact/hooks"
import { change, get, Problem, useGet } from "../api"
import { Ask } from "../parts/dialog"
import { More, usePages } from "../parts/more"
import { Empty, Failed, Figure, State, Time, Waiting } from "../parts/small"
import { bytes, count, span } from "../parts/words"
import { go, link } from "../route"
import type { Health as Seen, Overview, Tenant } from "../wire"

/** Whether there is a tenant; one is changed by what makes one. Rejects with Problem. */
const there = (path: string) =>
  get(path).then(
    () => true,
    (e: Problem) => {
      if (e.status === 404) return false
      throw e
    },
  )

/** Every tenant's log. */
export function Tenants() {
  const list = usePages<Tenant>("/v1/tenants?limit=50")
  const [asking, ask] = useState(false)
  const [id, setId] = useState(""), [parent, setParent] = useState(""), [age, setAge] = useState("")
  return (
    <>
      <header>
        <h1>Tenants</h1>
        <span class="soft">each has one log</span>
        <button type="button" class="do" onClick={() => ask(true)}>
          New tenant…
        </button>
      </header>
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.rows.length > 0 && (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>Tenant</th>
                <th>State</th>
                <th class="num">Events a second</th>
                <th class="num">Last sequence</th>
                <th class="num wide-only">Dead</th>
                <th class="wide-only">Kept</th>
                <th class="wide-only">Parent</th>
                <th class="wide-only">Made</th>
              </tr>
            </thead>
            <tbody>
              {list.rows.map((t) => (
                <Row key={t.id} t={t} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      <More of={list} />
      {list.next === null && !list.rows.length && <Empty title="There is no tenant" />}
      {asking && (
        <Ask
          title="New tenant"
          button="Make it"
          close={() => ask(false)}
          does={async () => {
            const path = "/v1/tenants/" + encodeURIComponent(id)
            if (await there(path)) throw new Problem(409, "conflict", "there is a tenant with this id already", "id")
            await change("PUT", path, { parent: parent || undefined, retention: age ? { age } : undefined })
            go(link("/start", id))
          }}
        >
          <label>
            <span>Id</span>
            <input required value={id} pattern="[A-Za-z0-9][A-Za-z0-9_\-]{0,63}" onInput={(e) => setId(e.currentTarget.value)} />
          </label>
          <label>
            <span>Parent (optional)</span>
            <input value={parent} onInput={(e) => setParent(e.currentTarget.value)} />
            <span class="hint">The platform that reads this tenant's events in its own log too. It is set once.</span>
          </label>
          <label>
            <span>Keep events for</span>
            <select value={age} onChange={(e) => setAge(e.currentTarget.value)}>
              <option value="">ever</option>
              <option value="168h">7 days</option>
              <option value="720h">30 days</option>
              <option value="8760h">a year</option>
            </select>
          </label>
        </Ask>
      )}
    </>
  )
}

/** For those whose key opens all tenants and not the list of them. */
export function WhichTenant() {
  return (
    <>
      <header>
        <h1>Which tenant?</h1>
      </header>
      <form
        class="set"
        onSubmit={(e) => {
          e.preventDefault()
          go(link("", String(new FormData(e.currentTarget).get("id")).trim()))
        }}
      >
        <label>
          <span>Id</span>
          <input name="id" required autocomplete="off" />
          <span class="hint">Its pages are at {location.origin}/ui/ and its id. Only keys with the scope admin see the list of tenants.</span>
        </label>
        <div>
          <button class="first">Go to it</button>
        </div>
      </form>
    </>
  )
}

function Row({ t }: { t: Tenant }) {
  const o = useGet<Overview>(`/v1/tenants/${encodeURIComponent(t.id)}/overview`, 5000).data
  const failing = o ? o.subscriptions.failing + o.subscriptions.disabled : 0
  return (
    <tr>
      <td class="name">
        <a data-row href={link("", t.id)}>
          {t.id}
        </a>
      </td>
      <td>{o ? <State tone={failing ? "b" : o.parked.dead ? "w" : o.head.last ? "" : "n"}>{failing ? `${count(failing)} failing` : o.parked.dead ? "some dead" : o.head.last ? "flowing" : "empty"}</State> : "…"}</td>
      <td class="num">{o ? count(o.events_per_s) : "–"}</td>
      <td class="num">{o ? count(o.head.last) : "–"}</td>
      <td class="num wide-only">{o ? count(o.parked.dead) : "–"}</td>
      <td class="soft wide-only">{[t.retention?.age && span(t.retention.age), t.retention?.bytes && bytes(t.retention.bytes)].filter(Boolean).join(" · ") || "for ever"}</td>
      <td class="wide-only">{t.parent}</td>
      <td class="soft wide-only">
        <Time at={t.created} />
      </td>
    </tr>
  )
}

/** How the servers are. */
export function Health() {
  const got = useGet<Seen>("/v1/health", 3000)
  if (got.error && !got.data) return <Failed error={got.error} again={got.reload} />
  const h = got.data
  if (!h) return <Waiting what="Asking the server" />
  const bad = Object.values(h.checks).filter((v) => v !== "ok").length
  const free = h.disk ? h.disk.free / Math.max(1, h.disk.total) : 1
  return (
    <>
      <header>
        <h1>Health</h1>
        <State tone={bad ? "b" : ""}>{bad ? `${bad} of ${Object.keys(h.checks).length} checks fail` : "all is well"}</State>
      </header>
      <section class="figures" aria-label="Now">
        <Figure value={h.version} of={h.store === "postgresql" ? "over PostgreSQL" : "embedded store"} />
        <Figure value={<Time at={h.started} since />} of="started" />
        {h.disk && <Figure value={bytes(h.disk.data)} of="data on disk" />}
        {h.disk && <Figure value={bytes(h.disk.free)} of={`free of ${bytes(h.disk.total)}`} tone={free < 0.1 ? "bad" : ""} />}
        {h.database && <Figure value={`${count(h.database.connections.in_use)} / ${count(h.database.connections.max)}`} of={`connections · PostgreSQL ${h.database.version}`} tone={h.database.connections.in_use >= h.database.connections.max ? "warn" : ""} />}
        {h.leases && <Figure value={`${count(h.leases.held)} / ${count(h.leases.total)}`} of="shards delivered for here" />}
        {h.streams !== undefined && <Figure value={count(h.streams)} of="streams open" />}
      </section>
      <h2>Checks</h2>
      <dl>
        {Object.entries(h.checks).map(([name, v]) => (
          <>
            <dt>{name}</dt>
            <dd>
              <State tone={v === "ok" ? "" : "b"}>{v}</State>
            </dd>
          </>
        ))}
      </dl>
      {h.nodes && h.nodes.length > 0 && (
        <>
          <h2>
            Nodes <span class="soft">identical; each delivers for the shards that it holds</span>
          </h2>
          <div class="scroll" tabindex={0}>
            <table>
              <thead>
                <tr>
                  <th>Node</th>
                  <th class="num">Shards</th>
                  <th>Holds them until</th>
                </tr>
              </thead>
              <tbody>
                {h.nodes.map((n) => (
                  <tr key={n.id}>
                    <td class="mono">
                      {n.id} {n.self && <span class="tag">this one</span>}
                    </td>
                    <td class="num">{count(n.leases)}</td>
                    <td class="soft">{n.until ? <Time at={n.until} since /> : "–"}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
      <h2>More</h2>
      <p class="soft">
        <a class="ref" href="/metrics" target="_blank">
          /metrics
        </a>{" "}
        is for Prometheus; charts here need none{h.retention_of_metrics ? ` and reach back ${span(h.retention_of_metrics)}` : ""}.{" "}
        <a class="ref" href="/readyz" target="_blank">
          /readyz
        </a>{" "}
        is for load balancers.
      </p>
    </>
  )
}
