import { useGet } from "../api"
import { called, condition, where } from "../parts/condition"
import { Find } from "../parts/find"
import { Lanes } from "../parts/lanes"
import { More, usePages } from "../parts/more"
import { Empty, Failed } from "../parts/small"
import { count } from "../parts/words"
import { api, link, query, setQuery } from "../route"
import { limited, may } from "../session"
import type { Overview, Subscription } from "../wire"

const states = ["failing", "slow", "retrying", "dead", "paused", "disabled", "pull"] as const

const is: Record<(typeof states)[number], (s: Subscription) => boolean> = {
  failing: (s) => s.status?.circuit === "open",
  slow: (s) => condition(s).word === "slow",
  retrying: (s) => (s.status?.retrying ?? 0) > 0,
  dead: (s) => (s.status?.dead ?? 0) > 0,
  paused: (s) => s.state === "paused",
  disabled: (s) => s.state === "disabled",
  pull: (s) => !s.destination?.type,
}

/** Every lane. */
export function Subscriptions() {
  const state = (query.value.get("state") ?? "") as (typeof states)[number] | ""
  const name = query.value.get("name") ?? ""
  const list = usePages<Subscription>(api("/subscriptions?status=true&metrics=1h&limit=100"))
  const o = useGet<Overview>(limited() ? null : api("/overview"), 4000).data
  const makes = may("manage", "manage") && !limited()
  const rows = list.rows.filter((s) => (!state || is[state](s)) && (!name || (called(s) + where(s) + s.id).toLowerCase().includes(name.toLowerCase())))
  return (
    <>
      <header>
        <h1>Subscriptions</h1>
        <span class="soft">{o && `${count(o.subscriptions.total)} read this log`}</span>
        {makes && (
          <a class="button do" href={link("/subscriptions/new")}>
            New subscription
          </a>
        )}
        <Find />
      </header>
      <form class="filters" onSubmit={(e) => e.preventDefault()}>
        <label>
          State
          <select value={state} onChange={(e) => setQuery({ state: e.currentTarget.value })}>
            <option value="">any</option>
            {states.map((s) => (
              <option key={s}>{s}</option>
            ))}
          </select>
        </label>
        <label class="wide">
          Name or destination
          <input value={name} onInput={(e) => setQuery({ name: e.currentTarget.value }, true)} />
        </label>
        <button type="button" data-act="r" onClick={list.reload}>
          Look again
        </button>
      </form>
      {list.error && <Failed error={list.error} again={list.reload} />}
      {rows.length > 0 && <Lanes subs={rows} head={o?.head.last ?? 0} sparks />}
      <More of={list}>{list.next && <span>{count(list.rows.length)} looked at</span>}</More>
      {list.next === null && !rows.length && (
        <Empty title={list.rows.length ? "None is like that" : "Nobody has subscribed"}>
          {list.rows.length ? (
            <a class="ref" href={link("/subscriptions")}>
              Show all subscriptions
            </a>
          ) : (
            <>
              A subscription is a filter, a cursor and a rule for handing events over: to a webhook, or to workers that ask for them.{" "}
              {makes && (
                <a class="ref" href={link("/subscriptions/new")}>
                  Make the first
                </a>
              )}
            </>
          )}
        </Empty>
      )}
    </>
  )
}
