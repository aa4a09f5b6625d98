import { useState } from "preact/hooks"
import { More, usePages } from "../parts/more"
import { Empty, Failed, Time } from "../parts/small"
import { api, params, query, setQuery, tenant } from "../route"
import type { Entry } from "../wire"

/** createSubscription → create subscription */
const words = (action: string) => action.replace(/([A-Z])/g, " $1").toLowerCase()

/** Who changed what. */
export function Audit() {
  const of = tenant.value
  const actor = query.value.get("actor") ?? "", action = query.value.get("action") ?? "", target = query.value.get("target") ?? ""
  const list = usePages<Entry>((of ? api("/audit") : "/v1/audit") + params({ actor, action, target, limit: 100 }))
  return (
    <>
      <header>
        <h1>Audit</h1>
        <span class="soft">who changed what{of ? ` in ${of}` : ", over all tenants"}, newest first</span>
      </header>
      <form
        class="filters"
        onSubmit={(e) => {
          e.preventDefault()
          setQuery(Object.fromEntries([...new FormData(e.currentTarget)].map(([n, v]) => [n, String(v).trim()])))
        }}
      >
        <label>
          Who
          <input name="actor" defaultValue={actor} />
        </label>
        <label>
          Did
          <input name="action" defaultValue={action} placeholder="rotateSecret" />
        </label>
        <label class="wide">
          To
          <input name="target" class="mono" defaultValue={target} placeholder="sub_…" />
        </label>
        <button>Search</button>
      </form>
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.rows.length > 0 && (
        <div class="scroll" tabindex={0}>
          <table>
            <thead>
              <tr>
                <th>Time</th>
                <th>Who</th>
                <th>Did</th>
                {!of && <th>Tenant</th>}
                <th>To</th>
                <th class="wide-only">From</th>
                <th class="wide-only">Changed</th>
              </tr>
            </thead>
            <tbody>
              {list.rows.map((e) => (
                <Row key={e.id} e={e} all={!of} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      <More of={list} name="Older" />
      {list.next === null && !list.rows.length && <Empty title="Nothing was changed">{actor || action || target ? "Nothing that matches, that is." : "Changes of subscriptions, sources, keys and tenants are listed here, with who made them."}</Empty>}
    </>
  )
}

function Row({ e, all }: { e: Entry; all: boolean }) {
  const [open, set] = useState(false)
  const changes = Object.entries(e.changes ?? {})
  return (
    <>
      <tr>
        <td class="soft">
          <Time at={e.time} />
        </td>
        <td title={e.actor.id}>
          {e.actor.name || e.actor.id} <span class="faint">{e.actor.kind}</span>
        </td>
        <td class="name">{words(e.action)}</td>
        {all && <td>{e.tenant}</td>}
        <td class="mono">{e.target}</td>
        <td class="mono faint wide-only">{e.address}</td>
        <td class="wide-only">
          {changes.length > 0 && (
            <button type="button" class="plain" aria-expanded={open} data-row onClick={() => set(!open)}>
              {changes.map(([n]) => n).join(", ")}
            </button>
          )}
        </td>
      </tr>
      {open && (
        <tr>
          <td class="wrap" colSpan={all ? 7 : 6}>
            <dl>
              {changes.map(([name, [before, after]]) => (
                <>
                  <dt class="mono">{name}</dt>
                  <dd class="mono">
                    {JSON.stringify(before)} → {JSON.stringify(after)}
                  </dd>
                </>
              ))}
            </dl>
          </td>
        </tr>
      )}
    </>
  )
}
