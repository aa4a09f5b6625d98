import { change } from "../api"
import { api } from "../route"
import { may } from "../session"
import type { Parked, Subscription } from "../wire"
import { called } from "./condition"
import { subscriptionLink } from "./mend"
import { Act } from "./notices"
import { eventLink } from "./scope"
import { State, Time, type Tone } from "./small"
import { count } from "./words"

const tones: Record<Parked["state"], Tone> = { retrying: "w", waiting: "p", leased: "", dead: "b" }

/** Parked events as rows, each with what can be done about it. With subs each says whose it is. */
export function ParkedRows({ rows, subs, done }: { rows: Parked[]; subs?: Subscription[]; done: () => void }) {
  const replay = may("manage", "replay")
  const act = (p: Parked, verb: string) => change("POST", api(`/subscriptions/${p.subscription}/parked/${verb}`), { sequences: [p.sequence] }).then(done) // others may have its id
  return (
    <div class="scroll" tabindex={0}>
      <table>
        <thead>
          <tr>
            <th>Event</th>
            {subs && <th>Subscription</th>}
            <th>State</th>
            <th class="wide-only">Key</th>
            <th class="num">Tries</th>
            <th class="wide-only">Parked</th>
            <th>Next</th>
            <th class="wide-only">Last answer</th>
            <th />
          </tr>
        </thead>
        <tbody>
          {rows.map((p) => {
            const s = subs?.find((s) => s.id === p.subscription)
            return (
              <tr key={`${p.subscription} ${p.sequence}`}>
                <td class="name">
                  <a data-row href={eventLink(p.event, p.sequence)}>
                    {p.type}
                  </a>
                </td>
                {subs && (
                  <td>
                    <a href={subscriptionLink(p.subscription!)}>{s ? called(s) : p.subscription}</a>
                  </td>
                )}
                <td>
                  <State tone={tones[p.state]}>{p.state}</State>
                </td>
                <td class="mono wide-only">{p.key}</td>
                <td class="num">{count(p.attempts)}</td>
                <td class="soft wide-only">
                  <Time at={p.since} />
                </td>
                <td class="soft">{p.due ? <Time at={p.due} since /> : "–"}</td>
                <td class="soft fit wide-only" title={p.message}>
                  {p.status ? <span class="mono bad">{p.status} </span> : ""}
                  {p.message}
                </td>
                <td>
                  <span class="row">
                    {replay && p.state === "retrying" && <Act label="Try now" does={() => act(p, "retry")} done="It is due now." />}
                    {replay && p.state === "dead" && (
                      <>
                        <Act kind="do" label="Redrive" does={() => act(p, "redrive")} done="It is tried again." />
                        <Act label="Discard" does={() => act(p, "discard")} done="It was given up." />
                      </>
                    )}
                  </span>
                </td>
              </tr>
            )
          })}
        </tbody>
      </table>
    </div>
  )
}
