import { LaneLine, Spark } from "./tape"
import type { Subscription } from "../wire"
import { called, condition, where } from "./condition"
import { subscriptionLink } from "./mend"
import { State } from "./small"
import { count, share, took } from "./words"

/** Subscriptions as lanes: where each is in the log, and what is parked behind its cursor. */
export function Lanes({ subs, head, sparks }: { subs: Subscription[]; head: number; sparks?: boolean }) {
  return (
    <div class="scroll" tabindex={0}>
      <table>
        <thead>
          <tr>
            <th>Subscription</th>
            <th class="wide-only">Destination</th>
            <th>State</th>
            <th class="lane">Lane</th>
            <th class="num">Behind</th>
            <th class="num wide-only">In flight</th>
            <th class="num wide-only">p95</th>
            <th class="num wide-only">Taken</th>
            {sparks && <th class="wide-only">Last hour</th>}
          </tr>
        </thead>
        <tbody>
          {subs.map((s) => {
            const c = condition(s), l = s.status, m = s.metrics, tried = m ? m.taken + m.failed : 0
            return (
              <tr key={s.id}>
                <td class="name">
                  <a href={subscriptionLink(s.id)} data-row>
                    {called(s)}
                  </a>
                </td>
                <td class="soft fit wide-only" title={where(s)}>
                  {where(s)}
                </td>
                <td>
                  <State tone={c.tone}>{c.word}</State>
                </td>
                <td class="lane">{l && <LaneLine lane={l} tone={c.tone} head={head} />}</td>
                <td class="num">{l ? count(l.lag) : "–"}</td>
                <td class="num wide-only">{l ? count(l.in_flight + (l.leased ?? 0)) : "–"}</td>
                <td class={"num wide-only" + (c.word === "slow" ? " warn" : "")}>{tried ? took(m!.duration.p95_ms) : "–"}</td>
                <td class={"num wide-only" + (tried && m!.taken / tried < 0.9 ? " bad" : "")}>{tried ? share(m!.taken / tried) : "–"}</td>
                {sparks && <td class="wide-only">{m && <Spark all={m.spark} failed={m.spark_failed} />}</td>}
              </tr>
            )
          })}
        </tbody>
      </table>
    </div>
  )
}
