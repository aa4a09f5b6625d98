import { useState } from "preact/hooks"
import { parse, type Node } from "./raw"

/** Copies a text; the button says that it has. */
export function Copy({ text, label = "Copy", act }: { text: string | (() => string); label?: string; act?: string }) {
  const [done, set] = useState(false)
  const copy = async () => {
    await navigator.clipboard.writeText(typeof text === "string" ? text : text())
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
  let node: Node
  try {
    JSON.parse(text)
    node = parse(text)
  } catch {
    return <pre tabindex={0}>{text}</pre>
  }
  return (
    <pre class="tree" tabindex={0}>
      <Branch node={node} depth={0} last />
    </pre>
  )
}

const shownAtOnce = 200

function Branch({ node, name, depth, last }: { node: Node; name?: string; depth: number; last?: boolean }) {
  const [all, setAll] = useState(false)
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
  const items = all ? node.of : node.of.slice(0, shownAtOnce)
  return (
    <details open={depth < 3}>
      <summary>
        {before}
        {open} <span class="faint">{node.of.length > 3 || depth >= 3 ? node.of.length : ""}</span>
      </summary>
      <div class="in">
        {items.map((item, i) =>
          node.kind === "object" ? (
            <Branch key={i} name={(item as [string, Node])[0]} node={(item as [string, Node])[1]} depth={depth + 1} last={i === node.of.length - 1} />
          ) : (
            <Branch key={i} node={item as Node} depth={depth + 1} last={i === node.of.length - 1} />
          ),
        )}
        {items.length < node.of.length && (
          <button type="button" class="plain" onClick={() => setAll(true)}>
            {node.of.length - items.length} more
          </button>
        )}
      </div>
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
