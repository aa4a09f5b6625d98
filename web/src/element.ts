// <eventhose-portal src="https://events.example.com/portal" token="…" theme="dark" accent="#7a3cff">: the portal as an element of any page. The token
// goes into the fragment, which no server sees, and the portal keeps it in memory: it needs no cookie, so browsers that block those of
// embedded pages show it too.
class EventhosePortal extends HTMLElement {
  static observedAttributes = ["src", "token", "theme", "accent"]
  #frame = document.createElement("iframe")
  #root = this.attachShadow({ mode: "closed" })

  constructor() {
    super()
    const sheet = new CSSStyleSheet()
    sheet.replaceSync(":host { display: block; height: 640px } iframe { border: 0; width: 100%; height: 100%; display: block; color-scheme: normal }")
    this.#root.adoptedStyleSheets = [sheet]
    this.#frame.title = "Events"
    this.#frame.allow = "clipboard-write"
    this.#frame.referrerPolicy = "no-referrer"
    this.#root.append(this.#frame)
  }

  connectedCallback() {
    this.#show()
  }

  attributeChangedCallback() {
    if (this.isConnected) this.#show()
  }

  #show() {
    const src = this.getAttribute("src") ?? new URL("/portal", import.meta.url).href
    const token = this.getAttribute("token")
    if (!token) return this.#frame.remove()
    const said = new URLSearchParams({ token })
    for (const name of ["theme", "accent"]) {
      const value = this.getAttribute(name)
      if (value) said.set(name, value)
    }
    // Another fragment alone would not load the page again.
    this.#frame.remove()
    this.#frame.src = src + "#" + said
    this.#root.append(this.#frame)
  }
}

customElements.define("eventhose-portal", EventhosePortal)
export {}
