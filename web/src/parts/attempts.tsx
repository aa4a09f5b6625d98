import type { Attempt, Subscription } from "../wire"
import { Bar } from "../pages/event"
import { called } from "./condition"
import { attemptLink } from "./mend"
import { State, Time } from "./small"
import { millis, some, span } from "./words"

const kinds: Record<string, string> = { first: "", retry: "retry", probe: "probe", replay: "replay", redrive: "redrive", test: "test" }

/** Attempts as rows. With subs each says whose it is. */
export function Attempts({ rows, subs }: { rows: Attempt[]; subs?: Subscription[] }) {
  const most = Math.max(1, ...rows.map((t) => millis(t.duration)))
  return (
    <div class="scroll" tabindex={0}>
      <table>
        <thead>
          <tr>
            <th>Time</th>
            {subs && <th>Subscription</th>}
            <th>Answer</th>
            <th class="wide-only">Events</th>
            <th>Try</th>
            <th class="wide-only" style={{ width: "18%" }}>
              Time spent
            </th>
            <th class="num">Took</th>
            <th class="wide-only">What it says</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((t) => {
            const sub = subs?.find((s) => s.id === t.subscription)
            return (
              <tr key={t.id}>
                <td>
                  <a href={attemptLink(t.subscription, t.id)} data-row class="soft">
                    <Time at={t.started} />
                  </a>
                </td>
                {subs && <td class="name">{sub ? called(sub) : t.subscription}</td>}
                <td>
                  <State tone={t.outcome === "taken" ? "" : "b"}>
                    <span class="mono">{t.status || t.reason || t.outcome}</span>
                  </State>
                </td>
                <td class="wide-only soft">{t.events.length === 1 ? <span class="mono">{t.events[0]}</span> : some(t.events.length, "event")}</td>
                <td class="soft">
                  {t.number} {kinds[t.kind] && <span class="tag">{kinds[t.kind]}</span>}
                </td>
                <td class="wide-only">
                  <Bar t={t} most={most} />
                </td>
                <td class="num">{span(t.duration)}</td>
                <td class="wide-only soft fit" title={t.message}>
                  {t.message}
                </td>
              </tr>
            )
          })}
        </tbody>
      </table>
    </div>
  )
}
