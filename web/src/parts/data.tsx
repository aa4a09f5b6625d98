import { useMemo, useState } from "preact/hooks"
import { say } from "./notices"
import { parse, type Node } from "./raw"

/** Copies a text; the button says that it has. */
export function Copy({ text, label = "Copy", act }: { text: string | (() => string); label?: string; act?: string }) {
  const [done, set] = useState(false)
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(typeof text === "string" ? text : text())
    } catch {
      return say("Copying is not allowed here: select the text", true)
    }
    set(true)
    setTimeout(() => set(false), 1600)
  }
  return (
    <button type="button" onClick={copy} data-act={act}>
      {done ? "Copied" : label}
    </button>
  )
}

/** A block of text that people take with them. */
export function Code({ text }: { text: string }) {
  return (
    <div class="code">
      <pre tabindex={0}>{text}</pre>
      <Copy text={text} />
    </div>
  )
}

/** JSON to look into. The text is valid JSON; scalars are shown as they came. */
export function Tree({ text }: { text: string }) {
  const node = useMemo(() => taken(text), [text])
  if (!node) return <pre tabindex={0}>{text}</pre>
  return (
    <pre class="tree" tabindex={0}>
      <Branch node={node} depth={0} lines={1} last />
    </pre>
  )
}

/** Undefined is a text that cannot be shown as a tree. */
function taken(text: string): Node | undefined {
  try {
    JSON.parse(text)
    return parse(text)
  } catch {
    return undefined
  }
}

const shownAtOnce = 200
const openedAtOnce = 2000 // lines that are there without a click

/** lines is how many there are of its depth, if all branches are like those that it is in. */
function Branch({ node, name, depth, lines, last }: { node: Node; name?: string; depth: number; lines: number; last?: boolean }) {
  const size = "of" in node ? node.of.length : 0
  const within = lines * Math.min(size, shownAtOnce)
  const [opened, setOpened] = useState(depth === 0 || (depth < 3 && within <= openedAtOnce))
  const [shown, show] = useState(shownAtOnce)
  const before = name !== undefined && (
    <>
      <span class="k">{name}</span>
      {": "}
    </>
  )
  const after = last ? "" : ","
  if (node.kind !== "object" && node.kind !== "array")
    return (
      <div>
        {before}
        <span class={node.kind === "string" ? "v" : ""}>{node.text}</span>
        {after}
      </div>
    )
  const [open, close] = node.kind === "object" ? ["{", "}"] : ["[", "]"]
  if (!node.of.length)
    return (
      <div>
        {before}
        {open + close + after}
      </div>
    )
  const items = node.of.slice(0, shown)
  return (
    <details open={opened} onToggle={(e) => setOpened(e.currentTarget.open)}>
      <summary>
        {before}
        {open} <span class="faint">{size > 3 || !opened ? size : ""}</span>
      </summary>
      {opened && (
        <div class="in">
          {items.map((item, i) =>
            node.kind === "object" ? (
              <Branch key={i} name={(item as [string, Node])[0]} node={(item as [string, Node])[1]} depth={depth + 1} lines={within} last={i === size - 1} />
            ) : (
              <Branch key={i} node={item as Node} depth={depth + 1} lines={within} last={i === size - 1} />
            ),
          )}
          {items.length < size && (
            <button type="button" class="plain" onClick={() => show(shown + shownAtOnce)}>
              show more: {size - items.length} are left
            </button>
          )}
        </div>
      )}
      {close + after}
    </details>
  )
}

/** Data that is not JSON, as text if it is text. */
export function decoded(base64: string): string {
  const b = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(b)
  } catch {
    return base64
  }
}
