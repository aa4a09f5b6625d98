// What the pages say to the server: the public HTTP API and nothing else. An operator is known by the session's cookie, a
// portal by the token of its link, which is kept in this module and nowhere else.
import { signal } from "@preact/signals"
import { useEffect, useRef, useState } from "preact/hooks"

/** What the server says is wrong (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly field = "",
    readonly fix = "",
  ) {
    super(message)
  }
}

let bearer = ""
/** Uses a token instead of the cookie, "" for the cookie again. */
export function useBearer(token: string) {
  bearer = token
}

/** Set when the server no longer knows who asks. */
export const signedOut = signal(false)

/** Set while requests come to nothing, so that pages that keep what they had do not look healthy. */
export const unreachable = signal(false)

const deadline = 40_000 // ms for a whole answer; for a stream, between two bytes

function headers(): Record<string, string> {
  return bearer ? { Authorization: "Bearer " + bearer } : {}
}

async function problem(r: Response): Promise<Problem> {
  let said: Record<string, string> = {}
  try {
    said = await r.json()
  } catch {
    // Something between here and the server answered.
  }
  if (r.status === 401) signedOut.value = true
  return new Problem(r.status, said.code ?? "", said.detail || said.title || `the server answered ${r.status}`, said.field, said.fix)
}

async function send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<string> {
  const late = AbortSignal.timeout(deadline)
  let r: Response, said = ""
  try {
    r = await fetch(path, {
      method,
      signal: signal ? AbortSignal.any([signal, late]) : late,
      credentials: bearer ? "omit" : "same-origin",
      headers: body === undefined ? headers() : { ...headers(), "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    })
    if (r.ok) said = await r.text()
  } catch (e) {
    if (signal?.aborted) throw e
    unreachable.value = true
    throw new Problem(0, "network", late.aborted ? "the server has not answered in time" : "the server cannot be reached", "", "look whether it runs and whether this machine is online")
  }
  unreachable.value = r.status === 502 || r.status === 504 // a proxy answers for it
  if (!r.ok) throw await problem(r)
  return said
}

/** Asks and reads JSON. Rejects with Problem. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return JSON.parse(await send("GET", path, undefined, signal))
}

/** The answer as it came, for data that must not be read as numbers. */
export async function text(path: string, signal?: AbortSignal): Promise<string> {
  return send("GET", path, undefined, signal)
}

/** Changes something. Rejects with Problem. */
export async function change<T>(method: "POST" | "PUT" | "PATCH" | "DELETE", path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const said = await send(method, path, body, signal)
  return (said ? JSON.parse(said) : undefined) as T
}

/** Follows a stream of lines until it ends, is aborted or has been silent for too long; each line is one JSON value. */
export async function lines(path: string, each: (value: any, line: string) => void, signal: AbortSignal): Promise<void> {
  const silent = new AbortController()
  let clock = 0
  const heard = () => {
    clearTimeout(clock)
    clock = setTimeout(() => silent.abort(), deadline)
  }
  heard()
  try {
    const r = await fetch(path, { signal: AbortSignal.any([signal, silent.signal]), credentials: bearer ? "omit" : "same-origin", headers: { ...headers(), Accept: "application/x-ndjson" } })
    if (!r.ok) throw await problem(r)
    const reader = r.body!.pipeThrough(new TextDecoderStream()).getReader()
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read()
      if (done) return
      heard()
      const parts = (rest + value).split("\n")
      rest = parts.pop()!
      for (const line of parts) if (line.trim()) each(JSON.parse(line), line)
    }
  } finally {
    clearTimeout(clock)
  }
}

/** A list as every route answers it. */
export interface List<T> {
  data: T[]
  next: string | null
}

export interface Asked<T> {
  data?: T
  error?: Problem
  /** Nothing has come yet. */
  waiting: boolean
  reload(): void
}

/**
 * Asks for a path and keeps what it answers; null asks for nothing. With every, it asks again after so many milliseconds as long
 * as the page is looked at. What was there stays until the next answer, so that nothing jumps.
 */
export function useGet<T>(path: string | null, every = 0): Asked<T> {
  const [state, set] = useState<{ path: string | null; data?: T; error?: Problem }>({ path })
  const [turn, again] = useState(0)
  const busy = useRef(false)
  useEffect(() => {
    if (path === null) return
    const stop = new AbortController()
    busy.current = true
    get<T>(path, stop.signal)
      .then((data) => stop.signal.aborted || set({ path, data }))
      .catch((error) => stop.signal.aborted || set((old) => ({ path, data: old.path === path ? old.data : undefined, error })))
      .finally(() => stop.signal.aborted || (busy.current = false))
    return () => stop.abort()
  }, [path, turn])
  useEffect(() => {
    if (!every) return
    const clock = setInterval(() => document.hidden || busy.current || again((n) => n + 1), every)
    return () => clearInterval(clock)
  }, [every])
  const mine = state.path === path
  return {
    data: mine ? state.data : undefined,
    error: mine ? state.error : undefined,
    waiting: path !== null && !(mine && (state.data || state.error)),
    reload: () => again((n) => n + 1),
  }
}
