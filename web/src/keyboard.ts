// Keys: / searches, j and k go from row to row, Enter opens, r does what the page is about again, g and a letter goes to a page, ? tells.
import { signal } from "@preact/signals"
import { go, link } from "./route"

export const helpShown = signal(false)

/** What the keys do, for the help. */
export const keys: [string, string][] = [
  ["/", "search"],
  ["j  k", "next and previous row"],
  ["Enter", "open the row"],
  ["r", "send again, try again, redrive: what the page is about"],
  ["p", "pause and go on (live events)"],
  ["g o", "overview"],
  ["g l", "live events"],
  ["g e", "events"],
  ["g s", "subscriptions"],
  ["g p", "parked"],
  ["Esc", "close"],
  ["?", "this help"],
]

const pages: Record<string, string> = { o: "", l: "/live", e: "/events", s: "/subscriptions", p: "/parked" }

export function listen() {
  let went = 0
  addEventListener("keydown", (e) => {
    const on = e.target as HTMLElement
    if (e.metaKey || e.ctrlKey || e.altKey || on.closest("input, textarea, select, dialog") || on.isContentEditable || document.querySelector("dialog[open]")) return
    if (Date.now() - went < 1200 && e.key in pages) {
      went = 0
      go(link(pages[e.key]!))
      return e.preventDefault()
    }
    switch (e.key) {
      case "/":
        document.querySelector<HTMLInputElement>("#find")?.focus()
        break
      case "?":
        helpShown.value = true
        break
      case "g":
        went = Date.now()
        break
      case "j":
      case "k": {
        const rows = [...document.querySelectorAll<HTMLElement>("main [data-row]")]
        const at = rows.findIndex((r) => r.contains(document.activeElement))
        const next = rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + (e.key === "j" ? 1 : -1)))]
        const focus = next?.matches("a, button") ? next : next?.querySelector<HTMLElement>("a, button")
        focus?.focus()
        next?.scrollIntoView({ block: "nearest" })
        break
      }
      default: {
        if (e.repeat) return
        const button = document.querySelector<HTMLButtonElement>(`main [data-act="${CSS.escape(e.key)}"]:not(:disabled)`)
        if (!button || e.key.length !== 1) return
        button.click()
      }
    }
    e.preventDefault()
  })
}
