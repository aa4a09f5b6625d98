import "./tokens.css"
import "uplot/dist/uPlot.min.css"
import "./base.css"
import { render, type ComponentType } from "preact"
import { signedOut } from "./api"
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
import { Health, Tenants } from "./pages/platform"
import { SignIn } from "./pages/signin"
import { NewSource, OneRejection, Source, Sources } from "./pages/sources"
import { Start } from "./pages/start"
import { Subscription } from "./pages/subscription"
import { Subscriptions } from "./pages/subscriptions"
import { Notices } from "./parts/notices"
import { Empty, Waiting } from "./parts/small"
import { link, page, portal, takeClicks, tenant } from "./route"
import { begin, limited, refused, session } from "./session"
import { Help, Mark, Side } from "./shell"

type Page = ComponentType<{ at: string[] }>

/** The pages of a tenant. A star stands for an id. */
const ofTenant: Record<string, Page> = {
  "": Overview,
  live: Live,
  events: Events,
  "events/*": Event,
  subscriptions: Subscriptions,
  "subscriptions/new": NewSubscription,
  "subscriptions/*": Subscription,
  "subscriptions/*/attempts/*": Attempt,
  parked: Parked,
  attempts: Attempts,
}

/** Those that no portal shows. */
const ofOperator: Record<string, Page> = {
  sources: Sources,
  "sources/new": NewSource,
  "sources/*": Source,
  "sources/*/rejections/*": OneRejection,
  inspector: Inspectors,
  "inspector/*": Inspector,
  start: Start,
  "portal-links": PortalLinks,
  keys: Keys,
  audit: Audit,
}

/** Those of no tenant. */
const ofPlatform: Record<string, Page> = {
  tenants: Tenants,
  keys: Keys,
  audit: Audit,
  health: Health,
}

/** The page at an address, and the ids in it. */
function found(): [Page, string[]] | undefined {
  const at = page.value
  if (limited() && (at.length === 0 || !["subscriptions", "events"].includes(at[0]!))) return [Subscriptions, []]
  const pages = tenant.value === "" ? ofPlatform : portal ? ofTenant : { ...ofTenant, ...ofOperator }
  const starred = at.map((part, i) => (i % 2 ? "*" : part)).join("/")
  for (const name of [at.join("/"), starred]) if (Object.hasOwn(pages, name)) return [pages[name]!, at.filter((_, i) => i % 2)]
  return undefined
}

function App() {
  const s = session.value
  if (!s || signedOut.value) return portal ? <Closed /> : <SignIn />
  const f = found()
  const Shown = f?.[0]
  return (
    <>
      <a class="skip" href="#main">
        Skip to the page
      </a>
      <Side />
      <main id="main" tabindex={-1}>
        {Shown ? (
          <Shown key={location.pathname} at={f[1]} />
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
listen()
render(<Waiting />, root)
void begin().then(() => {
  root.textContent = ""
  render(<Root />, root)
})
