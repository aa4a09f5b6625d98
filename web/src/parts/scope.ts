// Attempts and parked rows name an event by id and sequence, and an id may be in use once in each scope: the source that it came from.
import { useEffect, useState } from "preact/hooks"
import { get, type List } from "../api"
import { api, link, params } from "../route"
import { limited } from "../session"
import type { Event, Overview } from "../wire"

/** The address of an event's page where its source is not known. */
export const eventLink = (id: string, sequence: number | undefined) => link("/events/" + encodeURIComponent(id) + params({ sequence }))

/** The source of the event at a place of the log; "" if it has none, or is not to be found there. */
export async function sourceAt(id: string, sequence: number, signal?: AbortSignal): Promise<string> {
  const read = api("/events")
  try {
    const { head } = await get<Overview>(api("/overview"), signal)
    const after = sequence > 1 ? head.cursor.replace(/_.*/, "_" + (sequence - 1)) : "0"
    const e = (await get<List<Event>>(read + params({ after, limit: 1 }), signal)).data[0]
    return e?.sequence === sequence && e.id === id ? (e.source ?? "") : ""
  } catch {
    return "" // what asks for the event tells what is wrong
  }
}

/** The source that the address names, or else that of the event at a sequence; undefined until it is known. */
export function useSource(id: string, named: string, sequence: number): string | undefined {
  const wanted = !named && sequence > 0 && !limited()
  const [found, set] = useState<string>()
  useEffect(() => {
    if (!wanted) return
    const stop = new AbortController()
    set(undefined)
    void sourceAt(id, sequence, stop.signal).then((s) => stop.signal.aborted || set(s))
    return () => stop.abort()
  }, [id, sequence, wanted])
  return wanted ? found : named
}
