// Where the reader is. The address holds everything that a page shows, filters included, so that the back button and a link sent
// to a colleague bring the same view. An operator's pages are below /ui/TENANT, those of no tenant below /ui/-, a portal's below /portal.
import { computed, signal } from "@preact/signals"

export const portal = location.pathname === "/portal" || location.pathname.startsWith("/portal/")

const here = signal(location.pathname + location.search)
addEventListener("popstate", () => (here.value = location.pathname + location.search))

/** The tenant of a portal, once it is known. */
export const portalTenant = signal("")

/** A piece of an address; one whose escapes are no text stays as it is. */
function piece(s: string): string {
  try {
    return decodeURIComponent(s)
  } catch {
    return s
  }
}

const parts = computed(() => new URL(here.value, location.origin).pathname.split("/").slice(portal ? 2 : 3).filter(Boolean).map(piece))

/** The tenant whose pages are shown; "" on pages of none. */
export const tenant = computed(() => {
  if (portal) return portalTenant.value
  const t = piece(new URL(here.value, location.origin).pathname.split("/")[2] ?? "")
  return t === "-" ? "" : t
})

/** The page's path in parts: ["subscriptions", "sub_…"]. */
export const page = parts
export const query = computed(() => new URL(here.value, location.origin).searchParams)

/** The address of a page of the tenant that is shown, or of another. */
export function link(path: string, of = tenant.value): string {
  return portal ? "/portal" + path : `/ui/${encodeURIComponent(of || "-")}${path}`
}

/** The address of a page that belongs to no tenant. */
export function platform(path: string): string {
  return "/ui/-" + path
}

/** The route of the API below the tenant that is shown. */
export function api(path: string, of = tenant.value): string {
  return `/v1/tenants/${encodeURIComponent(of)}${path}`
}

export function go(to: string, replace = false) {
  if (to === here.value) return
  const before = location.pathname
  history[replace ? "replaceState" : "pushState"](null, "", to)
  here.value = to
  if (!replace && location.pathname !== before) {
    scrollTo(0, 0)
    document.querySelector<HTMLElement>("main")?.focus({ preventScroll: true })
  }
}

/** Changes what the address says beside the path; "" takes a name out. */
export function setQuery(values: Record<string, string>, replace = false) {
  const q = new URLSearchParams(query.value)
  for (const [name, value] of Object.entries(values)) value ? q.set(name, value) : q.delete(name)
  const s = q.toString()
  go(location.pathname + (s ? "?" + s : ""), replace)
}

/** Query of an API call: empty values are left out. */
export function params(values: Record<string, string | number | boolean | undefined | null>): string {
  const q = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) if (value !== undefined && value !== null && value !== "") q.set(name, String(value))
  const s = q.toString()
  return s ? "?" + s : ""
}

/** Takes clicks on links of ours, but for those that open elsewhere. */
export function takeClicks() {
  addEventListener("click", (e) => {
    const a = (e.target as Element).closest?.("a")
    if (!a || e.defaultPrevented || e.button || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey || a.target || a.hasAttribute("download")) return
    const url = new URL(a.href, location.href)
    if (url.origin !== location.origin || !url.pathname.startsWith(portal ? "/portal" : "/ui/")) return
    e.preventDefault()
    go(url.pathname + url.search)
  })
}
