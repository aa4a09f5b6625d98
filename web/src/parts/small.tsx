import type { ComponentChildren } from "preact"
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import type { Problem } from "../api"
import { ago, exactly, when } from "./words"

/** A moment: the clock, or how long ago; exactly when the pointer rests on it. */
export function Time({ at, since }: { at: string | undefined; since?: boolean }) {
  const [, tick] = useState(0)
  useEffect(() => {
    if (!since) return
    const clock = setInterval(() => tick((n) => n + 1), 1000)
    return () => clearInterval(clock)
  }, [since])
  if (!at) return <span class="faint">–</span>
  return (
    <time dateTime={at} title={exactly(at)}>
      {since ? ago(at) : when(at)}
    </time>
  )
}

export type Tone = "" | "w" | "b" | "p" | "n"

/** A state: the dot is for the eye, the word for everybody. */
export function State({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return (
    <span class="state">
      <i class={"dot " + tone} aria-hidden="true" />
      {children}
    </span>
  )
}

/** What went wrong with a question, and what to do. */
export function Failed({ error, again }: { error: Problem; again?: () => void }) {
  return (
    <div class="why" role="alert">
      <b>{error.status === 404 ? "It is not here" : error.status === 403 ? "You may not see this" : "That did not work"}</b>
      <p>
        {error.field ? <code>{error.field}</code> : ""} {error.message}
        {error.fix ? `: ${error.fix}` : ""}.
      </p>
      {again && (
        <div>
          <button type="button" onClick={again}>
            Try again
          </button>
        </div>
      )}
    </div>
  )
}

/** Nothing is here, and what would change that. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <b>{title}</b>
      {children}
    </div>
  )
}

/** Waiting takes a word. */
export function Waiting({ what = "Loading" }: { what?: string }) {
  return (
    <p class="faint" role="status">
      {what}…
    </p>
  )
}

/** A sentence that says what is wrong, and the buttons that mend it. */
export function Why({ tone = "", title, children, acts }: { tone?: "" | "w" | "i" | "p"; title: ComponentChildren; children?: ComponentChildren; acts?: ComponentChildren }) {
  return (
    <article class={"why " + tone}>
      <b>{title}</b>
      {children && <p>{children}</p>}
      {acts && <div>{acts}</div>}
    </article>
  )
}

/** Which of several views of one thing is shown. */
export function Tabs({ names, at, to }: { names: [id: string, label: ComponentChildren][]; at: string; to: (id: string) => void }) {
  return (
    <div class="tabs" role="tablist">
      {names.map(([id, label]) => (
        <button key={id} type="button" role="tab" aria-selected={id === at} onClick={() => to(id)}>
          {label}
        </button>
      ))}
    </div>
  )
}

/** A figure with what it is of. */
export function Figure({ value, unit, of, tone = "", href }: { value: ComponentChildren; unit?: string; of: ComponentChildren; tone?: string; href?: string }) {
  const inside = (
    <>
      <b class={tone}>
        {value}
        {unit && <small> {unit}</small>}
      </b>
      <span>{of}</span>
    </>
  )
  return href ? <a href={href}>{inside}</a> : <div>{inside}</div>
}

/** A select that begins with a value and then is the reader's. */
export function Choice({ name, value, disabled, children }: { name: string; value: string; disabled?: boolean; children: ComponentChildren }) {
  const ref = useRef<HTMLSelectElement>(null)
  useLayoutEffect(() => void (ref.current!.value = value), [value])
  return (
    <select ref={ref} name={name} disabled={disabled}>
      {children}
    </select>
  )
}
