import { useState } from "preact/hooks"
import { useGet } from "../api"
import { sentence } from "../parts/notices"
import { Why } from "../parts/small"
import { refused, signIn } from "../session"
import { Mark } from "../shell"

/** The door for operators. */
export function SignIn() {
  const methods = useGet<{ key: boolean; oidc: { name: string } | null }>("/v1/sessions/methods").data
  const [wrong, setWrong] = useState(refused.value)
  const [busy, setBusy] = useState(false)
  return (
    <main class="signin" id="main">
      <p class="brand">
        <Mark />
        Eventhose
      </p>
      <h1>Sign in</h1>
      {wrong && (
        <div style={{ marginTop: "16px" }} role="alert">
          <Why title="That did not work">{wrong}</Why>
        </div>
      )}
      {methods?.oidc && (
        <p>
          <a class="button first" href={"/v1/sessions/oidc?return=" + encodeURIComponent(location.pathname + location.search)}>
            Sign in with {methods.oidc.name}
          </a>
        </p>
      )}
      <form
        class="set"
        style={{ marginTop: "16px" }}
        onSubmit={async (e) => {
          e.preventDefault()
          setBusy(true)
          setWrong("")
          try {
            await signIn(String(new FormData(e.currentTarget).get("key")).trim())
          } catch (e) {
            setWrong(sentence(e))
          }
          setBusy(false)
        }}
      >
        <label>
          <span>API key</span>
          <input name="key" type="password" required autocomplete="current-password" autofocus spellcheck={false} />
          <span class="hint">
            The admin key that the server was started with, or a key made by <code>eventhose keys create</code>. It is exchanged for a session of 12 hours and not kept.
          </span>
        </label>
        <div>
          <button class={methods?.oidc ? "do" : "first"} disabled={busy}>
            Sign in
          </button>
        </div>
      </form>
    </main>
  )
}
