import type { ComponentChildren } from "preact"
import { useEffect, useRef, useState } from "preact/hooks"
import { get, Problem } from "../api"

export interface Pages<T> {
  rows: T[]
  /** What more asks for; null at the end, undefined before the first answer. */
  next: string | null | undefined
  /** The whole last answer. */
  last: any
  error?: Problem
  busy: boolean
  more(): void
  reload(): void
}

/** A list that grows by a page at a time. cursor names the parameter that its route takes for the next page. */
export function usePages<T>(path: string | null, cursor: "after" | "before" = "after"): Pages<T> {
  const [state, set] = useState<{ path: string | null; rows: T[]; last?: any; next?: string | null; error?: Problem }>({ path, rows: [] })
  const [busy, setBusy] = useState(false)
  const [turn, again] = useState(0)
  const asking = useRef<AbortController>(null)
  const ask = async (from: string) => {
    asking.current?.abort()
    const { signal } = (asking.current = new AbortController())
    setBusy(true)
    try {
      const join = path!.includes("?") ? "&" : "?"
      const a = await get<{ data: T[]; next: string | null }>(path + (from ? `${join}${cursor}=${encodeURIComponent(from)}` : ""), signal)
      if (signal.aborted) return
      set((old) => ({ path, rows: from && old.path === path ? [...old.rows, ...a.data] : a.data, next: a.next ?? null, last: a }))
      setBusy(false)
    } catch (e) {
      if (signal.aborted) return
      set((old) => ({ ...(old.path === path ? old : { path, rows: [] }), error: e as Problem }))
      setBusy(false)
    }
  }
  useEffect(() => {
    if (path === null) return
    void ask("")
    return () => asking.current?.abort()
  }, [path, turn])
  const mine = state.path === path
  return {
    rows: mine ? state.rows : [],
    next: mine ? state.next : undefined,
    last: mine ? state.last : undefined,
    error: mine ? state.error : undefined,
    busy,
    more: () => state.next && void ask(state.next),
    reload: () => again((n) => n + 1),
  }
}

/** What stands below a list. */
export function More({ of, name = "More", children }: { of: Pages<unknown>; name?: string; children?: ComponentChildren }) {
  if (of.next === undefined) return of.busy ? <p class="faint" role="status">Loading…</p> : null
  return (
    <div class="more">
      {of.next !== null && (
        <button type="button" disabled={of.busy} onClick={of.more}>
          {of.busy ? "Loading…" : name}
        </button>
      )}
      {children}
    </div>
  )
}
