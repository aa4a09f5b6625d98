// Light or dark: what the reader chose, or what the system has. A page that embeds the portal may choose with #theme=.
import { effect, signal } from "@preact/signals"

const system = matchMedia("(prefers-color-scheme: dark)")

function kept(): string {
  try {
    return localStorage.getItem("theme") ?? ""
  } catch {
    return "" // a browser that keeps nothing for embedded pages
  }
}

const chosen = signal(kept())
const dark = signal(system.matches)
system.addEventListener("change", (e) => (dark.value = e.matches))

export const theme = signal<"light" | "dark">("light")
effect(() => {
  theme.value = chosen.value === "dark" || chosen.value === "light" ? chosen.value : dark.value ? "dark" : "light"
  document.documentElement.dataset.theme = theme.value
})

export function choose(t: "light" | "dark", keep = true) {
  chosen.value = t
  if (!keep) return
  try {
    localStorage.setItem("theme", t)
  } catch {
    // It holds until the page is left.
  }
}
