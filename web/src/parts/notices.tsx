import { signal } from "@preact/signals"
import type { ComponentChildren } from "preact"
import { useState } from "preact/hooks"
import { Problem } from "../api"

interface Notice {
  id: number
  bad: boolean
  what: ComponentChildren
}

const notices = signal<Notice[]>([])
let last = 0

/** Says what came of something: for a while, or until it is closed. */
export function say(what: ComponentChildren, bad = false, stays = false) {
  const id = ++last
  notices.value = [...notices.value.slice(-3), { id, bad, what }]
  if (!stays) setTimeout(() => drop(id), bad ? 12_000 : 6_000)
}

const drop = (id: number) => (notices.value = notices.value.filter((n) => n.id !== id))

/** An error as a sentence. */
export function sentence(e: unknown): string {
  if (!(e instanceof Problem)) return String(e)
  return `${e.field ? e.field + " " : ""}${e.message}${e.fix ? ": " + e.fix : ""}`
}

export function Notices() {
  return (
    <div class="notices" role="status" aria-live="polite">
      {notices.value.map((n) => (
        <div key={n.id} class={n.bad ? "bad" : ""}>
          <span class="grow">{n.what}</span>
          <button type="button" aria-label="Close" onClick={() => drop(n.id)}>
            ×
          </button>
        </div>
      ))}
    </div>
  )
}

/** A button that changes something: it is off while that goes on, and says what came of it. */
export function Act({
  label,
  does,
  done,
  kind = "",
  act,
  disabled,
}: {
  label: ComponentChildren
  /** What it does; what it returns is said unless done is given. */
  does: () => Promise<ComponentChildren | void>
  done?: ComponentChildren
  kind?: "" | "do" | "first" | "danger" | "plain"
  /** The key that presses it: r on the whole page. */
  act?: string
  disabled?: boolean
}) {
  const [busy, set] = useState(false)
  const press = async () => {
    set(true)
    try {
      const said = await does()
      const what = done ?? said
      if (what) say(what)
    } catch (e) {
      say(sentence(e), true)
    } finally {
      set(false)
    }
  }
  return (
    <button type="button" class={kind} disabled={busy || disabled} aria-busy={busy} onClick={press} data-act={act}>
      {label}
    </button>
  )
}
