// Who the reader is: an operator with a session, or the holder of a portal link. The server decides what each may do; this
// only leaves out what would be refused.
import { signal } from "@preact/signals"
import { change, get, Problem, signedOut, useBearer } from "./api"
import { go, portal, portalTenant, tenant } from "./route"
import { say } from "./parts/notices"
import { choose } from "./theme"
import type { List } from "./api"
import type { Session } from "./wire"

export const session = signal<Session | null>(null)
/** Why nobody is signed in, when that needs saying. */
export const refused = signal("")

/** Reads what the address hands over behind #, which is never sent to a server, and takes it out of the address. */
function handedOver(): URLSearchParams {
  const given = new URLSearchParams(location.hash.slice(1))
  if (location.hash) history.replaceState(null, "", location.pathname + location.search)
  return given
}

/** Finds out who the reader is. It never rejects. */
export async function begin(): Promise<void> {
  const given = handedOver()
  const t = given.get("theme")
  if (t === "light" || t === "dark") choose(t, false)
  const accent = given.get("accent")
  if (accent && /^#[0-9a-f]{6}$/i.test(accent)) document.documentElement.style.setProperty("--water", accent)
  try {
    if (portal) {
      const token = given.get("token")
      if (!token) throw new Problem(401, "", "this page opens with a link only; ask for a new one")
      useBearer(token)
    }
    await known(await current(given.get("key")))
  } catch (e) {
    const p = e as Problem
    if (portal) refused.value = p.status === 401 || p.status === 403 ? "This link has expired, was revoked, or was not copied whole. Ask whoever sent it for a new one." : p.message
    else if (p.status !== 401) refused.value = p.message
    session.value = null
  }
}

/** The session that there is. Only where there is none the key makes one: an address that somebody sends replaces nobody's session. */
async function current(key: string | null): Promise<Session> {
  try {
    const s = await get<Session>("/v1/sessions/current")
    if (key && !portal) say("You are signed in already. To use the key of this address, sign out and open it again.")
    return s
  } catch (e) {
    if (!key || portal || (e as Problem).status !== 401) throw e
  }
  await change("POST", "/v1/sessions", { key })
  return get<Session>("/v1/sessions/current")
}

/** Begins again when an open page is handed something, which alone does not load it. */
export function takeHandovers() {
  addEventListener("hashchange", () => {
    const given = new URLSearchParams(location.hash.slice(1))
    if (given.has(portal ? "token" : "key")) location.reload()
  })
}

async function known(s: Session): Promise<void> {
  if (portal) portalTenant.value = s.tenant ?? ""
  else if (location.pathname === "/ui/" || location.pathname === "/ui") go(await home(s), true)
  signedOut.value = false
  session.value = s
}

/** The page that an operator begins with: his tenant's, or the first tenant's, or the list of them, which only admins see. */
async function home(s: Session): Promise<string> {
  if (s.tenant) return `/ui/${s.tenant}`
  if (!s.scopes.includes("admin")) return "/ui/-"
  const tenants = await get<List<{ id: string }>>("/v1/tenants?limit=2")
  return tenants.data.length === 1 ? `/ui/${tenants.data[0]!.id}` : "/ui/-/tenants"
}

/** Signs in with an API key. Rejects with Problem. */
export async function signIn(key: string): Promise<void> {
  await change("POST", "/v1/sessions", { key })
  refused.value = ""
  await known(await get<Session>("/v1/sessions/current"))
}

export async function signOut(): Promise<void> {
  await change("DELETE", "/v1/sessions/current")
  session.value = null
}

/** Whether the reader holds a scope towards the tenant that is shown, or in a portal the capability that opens the same. */
export function may(scope: "read" | "publish" | "manage" | "admin", capability?: string): boolean {
  const s = session.value
  if (!s) return false
  if (s.kind === "portal") return capability !== undefined && (s.capabilities ?? []).includes(capability)
  if (s.tenant && tenant.value && s.tenant !== tenant.value) return false
  return s.scopes.includes("admin") || s.scopes.includes(scope)
}

/** Whether the reader sees some subscriptions only, and nothing of the whole log. */
export const limited = () => (session.value?.subscriptions?.length ?? 0) > 0

/** Whether the reader is an operator of all tenants. */
export const operator = () => !!session.value && session.value.kind !== "portal" && !session.value.tenant && session.value.scopes.includes("admin")
