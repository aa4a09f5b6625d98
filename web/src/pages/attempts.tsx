import { useGet, type List } from "../api"
import { Attempts as Rows } from "../parts/attempts"
import { called } from "../parts/condition"
import { Find } from "../parts/find"
import { More, usePages } from "../parts/more"
import { Empty, Failed } from "../parts/small"
import { when } from "../parts/words"
import { api, link, params, query, setQuery } from "../route"
import type { Attempt, Subscription } from "../wire"

/** Why an attempt may fail, for people. */
export const reasons: [string, string][] = [
  ["", "any"],
  ["status", "an answer that is not 2xx"],
  ["timeout", "time-out"],
  ["refused", "nobody listens"],
  ["reset", "connection broke"],
  ["dns", "name does not resolve"],
  ["tls", "certificate or handshake"],
  ["blocked", "address not allowed"],
  ["redirect", "redirect"],
  ["protocol", "not HTTP"],
  ["partly", "part of a batch"],
  ["nack", "a worker gave it back"],
  ["expired", "a worker's lease ended"],
]

/** What was tried, over all subscriptions. */
export function Attempts() {
  const outcome = query.value.get("outcome") ?? "", reason = query.value.get("reason") ?? "", subscription = query.value.get("subscription") ?? ""
  const subs = useGet<List<Subscription>>(api("/subscriptions?limit=1000")).data?.data ?? []
  const list = usePages<Attempt>(api("/attempts" + params({ outcome, reason, subscription, limit: 50 })), "before")
  return (
    <>
      <header>
        <h1>Attempts</h1>
        <span class="soft">what was tried, newest first</span>
        <Find />
      </header>
      <form class="filters" onChange={(e) => setQuery(Object.fromEntries([...new FormData(e.currentTarget)].map(([n, v]) => [n, String(v)])))}>
        <label>
          Outcome
          <select name="outcome" value={outcome}>
            <option value="">any</option>
            <option value="taken">taken</option>
            <option value="failed">failed</option>
            <option value="gone">gone</option>
          </select>
        </label>
        <label>
          Reason
          <select name="reason" value={reason}>
            {reasons.map(([id, words]) => (
              <option key={id} value={id}>
                {words}
              </option>
            ))}
          </select>
        </label>
        <label>
          Subscription
          <select name="subscription" value={subscription}>
            <option value="">any</option>
            {subs.map((s) => (
              <option key={s.id} value={s.id}>
                {called(s)}
              </option>
            ))}
          </select>
        </label>
      </form>
      {list.error && <Failed error={list.error} again={list.reload} />}
      {list.rows.length > 0 && <Rows rows={list.rows} subs={subs} />}
      <More of={list} name={list.rows.length ? "Older" : "Search on"}>
        {list.next && list.last?.searched_to && <span>searched back to {when(list.last.searched_to)}</span>}
      </More>
      {list.next === null && !list.rows.length && (
        <Empty title="Nothing was tried">
          {outcome || reason || subscription ? (
            <a class="ref" href={link("/attempts")}>
              Show all attempts
            </a>
          ) : (
            "Attempts appear here once a subscription with a destination is due an event."
          )}
        </Empty>
      )}
    </>
  )
}
