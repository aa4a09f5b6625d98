import type { ComponentChildren } from "preact"
import { useEffect, useRef, useState } from "preact/hooks"
import { Code } from "./data"
import { sentence } from "./notices"

/** A question over the page. It is open as long as it is rendered. */
export function Dialog({ title, close, children }: { title: ComponentChildren; close: () => void; children: ComponentChildren }) {
  const ref = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    const d = ref.current!
    const before = document.activeElement as HTMLElement | null
    d.showModal()
    return () => {
      d.close()
      before?.focus?.()
    }
  }, [])
  return (
    <dialog
      ref={ref}
      aria-labelledby="dialog-title"
      onCancel={(e) => {
        e.preventDefault()
        close()
      }}
      onClose={() => {
        // The browser closes it at a second Esc without asking: it is up to close whether it stays.
        if (!ref.current) return
        ref.current.showModal()
        close()
      }}
    >
      <h2 id="dialog-title">{title}</h2>
      {children}
    </dialog>
  )
}

/** A form in a dialog: it stays open with what is wrong until it has worked. */
export function Ask({
  title,
  button,
  danger,
  does,
  close,
  children,
  disabled,
}: {
  title: ComponentChildren
  button: string
  danger?: boolean
  does: () => Promise<unknown>
  close: () => void
  children: ComponentChildren
  disabled?: boolean
}) {
  const [busy, setBusy] = useState(false)
  const [wrong, setWrong] = useState("")
  const submit = async (e: Event) => {
    e.preventDefault()
    setBusy(true)
    setWrong("")
    try {
      await does()
      close()
    } catch (e) {
      setWrong(sentence(e))
    } finally {
      setBusy(false)
    }
  }
  const leave = () => busy || close()
  return (
    <Dialog title={title} close={leave}>
      <form class="set" onSubmit={submit}>
        {children}
        {wrong && (
          <p class="wrong" role="alert">
            {wrong}
          </p>
        )}
        <div class="foot">
          <button type="button" disabled={busy} onClick={leave}>
            Cancel
          </button>
          <button class={danger ? "danger" : "first"} disabled={busy || disabled}>
            {button}
          </button>
        </div>
      </form>
    </Dialog>
  )
}

/** A secret that is shown this once. */
export function Once({ title, text, close, children }: { title: string; text: string; close: () => void; children: ComponentChildren }) {
  return (
    <Dialog title={title} close={close}>
      <p class="soft">{children}</p>
      <Code text={text} />
      <div class="foot">
        <button type="button" class="first" onClick={close}>
          I have it
        </button>
      </div>
    </Dialog>
  )
}
