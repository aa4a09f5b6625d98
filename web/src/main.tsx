import "./tokens.css"
import "uplot/dist/uPlot.min.css"
import "./base.css"
import { render, type ComponentType } from "preact"
import { signedOut } from "./api"
import { listen } from "./keyboard"
import { Event } from "./pages/event"
import { Events } from "./pages/events"
import { Live } from "./pages/live"
import { Overview } from "./pages/overview"
import { SignIn } from "./pages/signin"
import { Notices } from "./parts/notices"
import { Empty, Waiting } from "./parts/small"
import { link, page, portal, takeClicks, tenant } from "./route"
import { begin, refused, session } from "./session"
import { Help, Mark, Side } from "./shell"

type Page = ComponentType<{ at: string[] }>

/** The pages of a tenant, by the first part of their path and how many parts there are. */
const ofTenant: Record<string, Page> = {
  "": Overview,
  live: Live,
  events: Events,
  "events/*": Event,
}

/** The pages of no tenant. */
const ofPlatform: Record<string, Page> = {}

/** The page at an address, and what it is given of it. */
function found(): [Page, string[]] | undefined {
  const at = page.value
  const pages = tenant.value ? ofTenant : ofPlatform
  const name = at.map((part, i) => (i % 2 ? "*" : part)).join("/")
  const p = Object.hasOwn(pages, name) ? pages[name] : undefined
  return p && [p, at.filter((_, i) => i % 2)]
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
