import { useGet, type List } from "../api"
import { Find } from "../parts/find"
import { More, usePages } from "../parts/more"
import { ParkedRows } from "../parts/parkedrows"
import { Empty, Failed, Figure } from "../parts/small"
import { count } from "../parts/words"
import { api, link, params, query } from "../route"
import type { Overview, Parked as Row, Subscription } from "../wire"

/** What is set aside, over all subscriptions. Dead events come first: they need a person. */
export function Parked() {
  const state = query.value.get("state") ?? "dead"
  const o = useGet<Overview>(api("/overview"), 4000)
  const subs = useGet<List<Subscription>>(api("/subscriptions?limit=1000")).data?.data ?? []
  const list = usePages<Row>(api("/parked" + params({ state, limit: 100 })))
  const of = o.data?.parked
  const to = (s: string) => link("/parked" + (s === "dead" ? "" : "?state=" + s))
  return (
    <>
      <header>
        <h1>Parked</h1>
        <span class="soft">set aside so that cursors can move on</span>
        <Find />
      </header>
      <section class="figures" aria-label="How many">
        <Figure value={of ? count(of.dead) : "–"} of={<>dead: need a person{state === "dead" && " ·  shown"}</>} tone={of?.dead ? "bad" : ""} href={to("dead")} />
        <Figure value={of ? count(of.retrying) : "–"} of={<>will be tried again{state === "retrying" && " ·  shown"}</>} href={to("retrying")} />
        <Figure value={of ? count(of.waiting) : "–"} of={"wait behind their keys"} />
      </section>
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.rows.length > 0 && <ParkedRows rows={list.rows} subs={subs} done={() => (list.reload(), o.reload())} />}
      <More of={list} />
      {list.next === null && !list.rows.length && <Empty title={state === "dead" ? "Nothing is dead" : "None is in that state"}>{state === "dead" ? "Every event was taken, or will be tried again by itself." : ""}</Empty>}
    </>
  )
}
