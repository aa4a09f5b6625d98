import { useEffect, useState } from "preact/hooks"
import { useGet, type List } from "./api"
import { helpShown, keys } from "./keyboard"
import { Dialog } from "./parts/dialog"
import { Act } from "./parts/notices"
import { brief } from "./parts/words"
import { api, go, link, page, platform, portal, tenant } from "./route"
import { limited, may, operator, session, signOut } from "./session"
import { choose, theme } from "./theme"
import type { Overview } from "./wire"

export function Mark() {
  return (
    <svg width="20" height="20" viewBox="0 0 20 20" aria-hidden="true">
      <path d="M2 6h9a4 4 0 0 1 0 8H6" />
      <circle cx="17" cy="6" r="1" />
      <circle cx="14.4" cy="6" r="1" />
    </svg>
  )
}

interface Item {
  path: string
  name: string
  /** What stands at its right. */
  note?: string
  alarm?: boolean
}

/** The way to every page. */
export function Side() {
  const of = tenant.value
  const overview = useGet<Overview>(of && !limited() ? api("/overview") : null, 5000).data
  const dead = overview?.parked.dead ?? 0
  const items: Item[] = limited()
    ? [{ path: "/subscriptions", name: "Subscriptions" }]
    : [
    { path: "", name: "Overview" },
    ...(portal && !may("read", "data") ? [] : [{ path: "/live", name: "Live" }]),
    { path: "/events", name: "Events", note: overview && brief(overview.head.last) },
    { path: "/subscriptions", name: "Subscriptions", note: overview && brief(overview.subscriptions.total) },
    ...(portal ? [] : [{ path: "/sources", name: "Sources", note: overview && brief(overview.sources) }]),
    { path: "/parked", name: "Parked", note: dead ? brief(dead) : "", alarm: dead > 0 },
  ]
  const tools: Item[] = portal
    ? []
    : [
        { path: "/attempts", name: "Attempts" },
        { path: "/inspector", name: "Inspector" },
        { path: "/start", name: "First steps" },
      ]
  const own: Item[] = portal
    ? []
    : [
        { path: "/portal-links", name: "Portal links" },
        { path: "/keys", name: "Keys" },
        { path: "/audit", name: "Audit" },
      ]
  const all: Item[] = operator()
    ? [
        { path: "/tenants", name: "Tenants" },
        { path: "/keys", name: "All keys" },
        { path: "/audit", name: "All changes" },
        { path: "/health", name: "Health" },
      ]
    : []
  const at = page.value[0] ?? ""
  const [open, setOpen] = useState(false)
  useEffect(() => setOpen(false), [page.value])
  return (
    <nav class={"side" + (open ? " open" : "")} aria-label="Pages">
      <div class="top">
        <a class="brand" href={of ? link("") : platform(operator() ? "/tenants" : "")}>
          <Mark />
          Eventhose
        </a>
        <button type="button" class="menu" aria-expanded={open} onClick={() => setOpen(!open)}>
          Menu
        </button>
      </div>
      {!portal && <Tenants />}
      {of !== "" && <Items items={items} at={at} to={link} />}
      {of !== "" && tools.length > 0 && <h2>Tools</h2>}
      {of !== "" && <Items items={tools} at={at} to={link} />}
      {of !== "" && own.length > 0 && <h2>Access</h2>}
      {of !== "" && <Items items={own} at={at} to={link} />}
      {all.length > 0 && <h2>Operate</h2>}
      <Items items={all} at={of === "" ? at : "-"} to={platform} />
      <footer>
        <span class="break">{portal ? of : session.value?.subject}</span>
        <button type="button" class="plain" onClick={() => choose(theme.value === "dark" ? "light" : "dark", !portal)}>
          {theme.value === "dark" ? "Light" : "Dark"}
        </button>
        <button type="button" class="plain" onClick={() => (helpShown.value = true)}>
          Keys <kbd>?</kbd>
        </button>
        {!portal && (
          <>
            <a class="ref" href="/docs">
              API
            </a>
            <Act kind="plain" label="Sign out" does={signOut} />
          </>
        )}
      </footer>
    </nav>
  )
}

function Items({ items, at, to }: { items: Item[]; at: string; to: (path: string) => string }) {
  return (
    <>
      {items.map((i) => (
        <a key={i.path} class="item" href={to(i.path)} aria-current={at === i.path.slice(1) ? "page" : undefined}>
          {i.name}
          {i.note && <span class={i.alarm ? "bad" : "faint"}>{i.note}</span>}
        </a>
      ))}
    </>
  )
}

/** Which tenant is looked at. */
function Tenants() {
  const list = useGet<List<{ id: string }>>(operator() ? "/v1/tenants?limit=200" : null).data?.data ?? []
  const of = tenant.value
  if (!operator()) return <p class="tenant soft">{of}</p>
  return (
    <div class="tenant">
      <label class="hidden" for="tenant">
        Tenant
      </label>
      <select id="tenant" value={of} onChange={(e) => go(e.currentTarget.value ? link("/" + (page.value[1] ? "" : page.value.join("/")), e.currentTarget.value).replace(/\/$/, "") : platform("/tenants"))}>
        <option value="">All tenants</option>
        {of && !list.some((t) => t.id === of) && <option value={of}>{of}</option>}
        {list.map((t) => (
          <option key={t.id} value={t.id}>
            {t.id}
          </option>
        ))}
      </select>
    </div>
  )
}

export function Help() {
  if (!helpShown.value) return null
  const close = () => (helpShown.value = false)
  return (
    <Dialog title="Keys" close={close}>
      <dl>
        {keys.map(([key, does]) => (
          <>
            <dt>
              {key.split(/\s+/).map((k) => (
                <>
                  <kbd>{k}</kbd>{" "}
                </>
              ))}
            </dt>
            <dd>{does}</dd>
          </>
        ))}
      </dl>
      <div class="foot">
        <button type="button" onClick={close}>
          Close
        </button>
      </div>
    </Dialog>
  )
}
