import { useEffect, useRef, useState } from "preact/hooks"
import { get, type List } from "../api"
import { api, go, link, params } from "../route"
import { limited } from "../session"
import type { Subscription } from "../wire"

interface Choice {
  what: string
  name: string
  to: string
}

/** One box for everything: an id, a type, a key, a subscription's name. */
export function Find() {
  const [text, setText] = useState("")
  const [open, setOpen] = useState(false)
  const [at, setAt] = useState(0)
  const [subs, setSubs] = useState<Subscription[]>([])
  const box = useRef<HTMLInputElement>(null)
  const wanted = text.trim()
  useEffect(() => {
    if (!open || subs.length) return
    const stop = new AbortController()
    get<List<Subscription>>(api("/subscriptions?limit=1000"), stop.signal)
      .then((l) => setSubs(l.data))
      .catch(() => {}) // names are a help, not what was asked for
    return () => stop.abort()
  }, [open])
  const choices = wanted ? choose(wanted, subs) : []
  const take = (c: Choice | undefined) => {
    if (!c) return
    setOpen(false)
    setText("")
    box.current?.blur()
    go(c.to)
  }
  return (
    <search class="find">
      <label>
        <span class="hidden">Find an event, type, key or subscription</span>
        <input
          id="find"
          ref={box}
          type="search"
          list={undefined}
          autocomplete="off"
          spellcheck={false}
          placeholder="Find an event, type, key or subscription"
          role="combobox"
          aria-expanded={open && choices.length > 0}
          aria-controls="found"
          aria-activedescendant={open && choices[at] ? "found-" + at : undefined}
          value={text}
          onInput={(e) => {
            setText(e.currentTarget.value)
            setAt(0)
            setOpen(true)
          }}
          onFocus={() => setOpen(true)}
          onBlur={() => setTimeout(() => setOpen(false), 150)}
          onKeyDown={(e) => {
            if (e.key === "ArrowDown") setAt((i) => Math.min(choices.length - 1, i + 1))
            else if (e.key === "ArrowUp") setAt((i) => Math.max(0, i - 1))
            else if (e.key === "Enter") take(choices[at])
            else if (e.key === "Escape") box.current?.blur()
            else return
            e.preventDefault()
          }}
        />
        <kbd aria-hidden="true">/</kbd>
      </label>
      <ul id="found" role="listbox" aria-label="Found" hidden={!open || !choices.length}>
        {choices.map((c, i) => (
          <li key={c.to} id={"found-" + i} role="option" aria-selected={i === at} onMouseDown={() => take(c)}>
            <span class="soft">{c.what}</span>
            <span class="clip">{c.name}</span>
          </li>
        ))}
      </ul>
    </search>
  )
}

function choose(wanted: string, subs: Subscription[]): Choice[] {
  const named = subs
    .filter((s) => s.id === wanted || (s.name ?? "").toLowerCase().includes(wanted.toLowerCase()) || s.destination?.url?.includes(wanted))
    .slice(0, 6)
    .map((s) => ({ what: "Subscription", name: s.name || s.id, to: link("/subscriptions/" + s.id) }))
  const events = (what: string, name: string, value: string) => ({ what, name: value, to: link("/events" + params({ [name]: value })) })
  if (limited() && !wanted.startsWith("evt_")) return named
  if (/^\d+$/.test(wanted)) return [events("Events with the key", "keys", wanted), events("Event with the id", "id", wanted), ...named]
  if (wanted.startsWith("evt_")) return [{ what: "Event", name: wanted, to: link("/events/" + encodeURIComponent(wanted)) }, ...named]
  if (wanted.startsWith("sub_") && !named.length) return [{ what: "Subscription", name: wanted, to: link("/subscriptions/" + encodeURIComponent(wanted)) }]
  return [...named, events("Events of the type", "types", wanted), events("Events with the key", "keys", wanted), events("Event with the id", "id", wanted)]
}
