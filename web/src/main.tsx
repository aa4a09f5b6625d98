import "./tokens.css"
import "uplot/dist/uPlot.min.css"
import "./base.css"
import { render, type ComponentType } from "preact"
import { useEffect } from "preact/hooks"
import { signedOut, unreachable } from "./api"
import { listen } from "./keyboard"
import { Keys, PortalLinks } from "./pages/access"
import { Attempt } from "./pages/attempt"
import { Attempts } from "./pages/attempts"
import { Audit } from "./pages/audit"
import { Event } from "./pages/event"
import { Events } from "./pages/events"
import { Inspector, Inspectors } from "./pages/inspector"
import { Live } from "./pages/live"
import { NewSubscription } from "./pages/newsubscription"
import { Overview } from "./pages/overview"
import { Parked } from "./pages/parked"
import { Health, Tenants, WhichTenant } from "./pages/platform"
import { SignIn } from "./pages/signin"
import { NewSource, OneRejection, Source, Sources } from "./pages/sources"
import { Start } from "./pages/start"
import { Subscription } from "./pages/subscription"
import { Subscriptions } from "./pages/subscriptions"
import { Notices } from "./parts/notices"
import { Empty, Waiting, Why } from "./parts/small"
import { link, page, portal, takeClicks, tenant } from "./route"
import { begin, limited, refused, session, takeHandovers } from "./session"
import { Help, Mark, Side } from "./shell"

type Page = ComponentType<{ at: string[] }>

/** The pages of a tenant. A star stands for an id. */
const ofTenant: Record<string, [Page, title: string]> = {
  "": [Overview, "Overview"],
  live: [Live, "Live"],
  events: [Events, "Events"],
  "events/*": [Event, "Event"],
  subscriptions: [Subscriptions, "Subscriptions"],
  "subscriptions/new": [NewSubscription, "New subscription"],
  "subscriptions/*": [Subscription, "Subscription"],
  "subscriptions/*/attempts/*": [Attempt, "Attempt"],
  parked: [Parked, "Parked"],
  attempts: [Attempts, "Attempts"],
}

/** Those that no portal shows. */
const ofOperator: Record<string, [Page, title: string]> = {
  sources: [Sources, "Sources"],
  "sources/new": [NewSource, "New source"],
  "sources/*": [Source, "Source"],
  "sources/*/rejections/*": [OneRejection, "Rejected request"],
  inspector: [Inspectors, "Inspector"],
  "inspector/*": [Inspector, "Inspector"],
  start: [Start, "First steps"],
  "portal-links": [PortalLinks, "Portal links"],
  keys: [Keys, "Keys"],
  audit: [Audit, "Audit"],
}

/** Those of no tenant. */
const ofPlatform: Record<string, [Page, title: string]> = {
  "": [WhichTenant, "Eventhose"],
  tenants: [Tenants, "Tenants"],
  keys: [Keys, "All keys"],
  audit: [Audit, "All changes"],
  health: [Health, "Health"],
}

interface Found {
  page: Page
  title: string
  /** The ids in its address. */
  ids: string[]
}

/** Whether a link that is limited to some subscriptions opens the page at an address. */
const forLimited = (at: string[]) => at.length > 1 && (at[0] === "events" || (at[0] === "subscriptions" && at[1] !== "new"))

/** The page at an address. */
function found(): Found | undefined {
  const at = page.value
  if (limited() && !forLimited(at)) return { page: Subscriptions, title: "Subscriptions", ids: [] }
  const pages = tenant.value === "" ? ofPlatform : portal ? ofTenant : { ...ofTenant, ...ofOperator }
  const starred = at.map((part, i) => (i % 2 ? "*" : part)).join("/")
  for (const name of [at.join("/"), starred]) if (Object.hasOwn(pages, name)) return { page: pages[name]![0], title: pages[name]![1], ids: at.filter((_, i) => i % 2) }
  return undefined
}

/** Goes past the list of pages. The address stays: what is behind # is for what is handed over. */
function skip(e: MouseEvent) {
  e.preventDefault()
  document.getElementById("main")!.focus()
}

function App() {
  const known = session.value && !signedOut.value
  const f = known ? found() : undefined
  const title = [f?.title, tenant.value, "Eventhose"].filter((word, i, all) => word && all.indexOf(word) === i).join(" · ")
  useEffect(() => void (document.title = known ? title : "Eventhose"), [known, title])
  if (!known) return portal ? <Closed /> : <SignIn />
  const Shown = f?.page
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the page
      </a>
      <Side />
      <main id="main" tabindex={-1}>
        <div role="status">
          {unreachable.value && <Why title="The server does not answer">What is shown may be old. Look whether the server runs and whether this machine is online.</Why>}
        </div>
        {Shown ? (
          <Shown key={location.pathname} at={f!.ids} />
        ) : (
          <Empty title="There is no such page">
            <a class="ref" href={link("")}>
              Go to the overview
            </a>
          </Empty>
        )}
      </main>
      <Help />
      <Notices />
    </>
  )
}

/** A portal without a good link. */
function Closed() {
  return (
    <main class="signin" id="main">
      <p class="brand">
        <Mark />
        Eventhose
      </p>
      <Empty title="This link does not open anything">{refused.value || "It has expired or was revoked. Ask whoever sent it for a new one."}</Empty>
    </main>
  )
}

const root = document.getElementById("app")!

function Root() {
  const s = session.value
  root.className = s && !signedOut.value ? "" : "bare"
  return <App />
}

takeClicks()
takeHandovers()
listen()
render(<Waiting />, root)
void begin().then(() => {
  root.textContent = ""
  render(<Root />, root)
})
