import { useGet, type List } from "../api"
import { api } from "../route"
import type { Attempt, Subscription } from "../wire"
import { called, pull, slow } from "./condition"
import { attemptLink, Mend, subscriptionLink } from "./mend"
import { Why } from "./small"
import { capital, share, some, took, when } from "./words"

/** What is wrong with a subscription, in a sentence, and the buttons that mend it. */
export function Trouble({ sub, done }: { sub: Subscription; done: () => void }) {
  const l = sub.status
  const tries = useGet<List<Attempt>>(api(`/subscriptions/${sub.id}/attempts?limit=20`), 10_000).data?.data
  const last = tries?.find((t) => t.outcome !== "taken")
  const whole = useGet<Attempt>(last ? api(`/subscriptions/${sub.id}/attempts/${last.id}`) : null).data
  const diagnosis = whole?.diagnosis
  const name = called(sub)
  const dead = l?.dead ?? 0, waiting = l?.waiting ?? 0
  const counts = [dead && `${some(dead, "event is", "events are")} dead`, l?.retrying && `${l.retrying.toLocaleString("en")} will be tried again`, waiting && `${some(waiting, "waits behind its key", "wait behind their keys")}`].filter(Boolean).join(", ")
  let title = `${name} has ${some(dead, "dead event")}`
  let tone: "" | "w" = "w"
  if (sub.state === "disabled") [title, tone] = [`${name} is disabled${sub.reason ? ": " + sub.reason : ""}`, ""]
  else if (l?.circuit === "open") [title, tone] = [`${name} ${last?.status ? "answers " + last.status : "does not answer"}${l.failing_since ? " since " + when(l.failing_since) : ""}`, ""]
  else if (slow(sub)) title = `${name} is slow: p95 ${took(sub.metrics!.duration.p95_ms)}`
  return (
    <Why
      tone={tone}
      title={title}
      acts={
        <>
          <Mend sub={sub} diagnosis={diagnosis} done={done} />
          <a class="button" href={last ? attemptLink(sub.id, last.id) : subscriptionLink(sub.id)}>
            {last ? "See the failure" : "Open"}
          </a>
        </>
      }
    >
      {diagnosis ? `${diagnosis.title}. ${diagnosis.detail} ` : last?.message ? capital(last.message) + ". " : ""}
      {slow(sub) && l?.circuit !== "open" && `Answers take most of its time-out${sub.metrics!.failed ? `; ${share(sub.metrics!.failed / Math.max(1, sub.metrics!.attempts))} of tries failed` : ""}. `}
      {counts ? counts + "." : pull(sub) && l?.lag ? `${some(l.lag, "event waits", "events wait")} for workers.` : ""}
    </Why>
  )
}
