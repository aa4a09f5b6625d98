// The bytes of a value as they stand in a JSON text: data is shown as it came, large numbers and order of names included.

/** Where the value that begins at i ends. The text is valid JSON. */
function end(s: string, i: number): number {
  for (let depth = 0; i < s.length; i++) {
    const c = s[i]
    if (c === '"') {
      for (i++; s[i] !== '"'; i++) if (s[i] === "\\") i++
    } else if (c === "{" || c === "[") depth++
    else if (c === "}" || c === "]") depth--
    else if (/\s|[,:]/.test(c!)) continue
    else while (i + 1 < s.length && !/[\s,\]}]/.test(s[i + 1]!)) i++
    if (depth === 0) return i + 1
  }
  return s.length
}

const skip = (s: string, i: number) => {
  while (/\s/.test(s[i] ?? "")) i++
  return i
}

/** The text of a member of the object that s is, or undefined. */
export function member(s: string, name: string): string | undefined {
  let i = skip(s, 0)
  if (s[i] !== "{") return undefined
  for (i = skip(s, i + 1); s[i] === '"'; ) {
    const nameEnd = end(s, i)
    const from = skip(s, skip(s, nameEnd) + 1)
    const to = end(s, from)
    if (JSON.parse(s.slice(i, nameEnd)) === name) return s.slice(from, to)
    i = skip(s, to)
    if (s[i] === ",") i = skip(s, i + 1)
  }
  return undefined
}

/** The texts of the values in the array that s is. */
export function elements(s: string): string[] {
  const all: string[] = []
  for (let i = skip(s, skip(s, 0) + 1); i < s.length && s[i] !== "]"; ) {
    const to = end(s, i)
    all.push(s.slice(i, to))
    i = skip(s, to)
    if (s[i] === ",") i = skip(s, i + 1)
  }
  return all
}

/** A JSON text taken apart for showing: scalars keep their bytes. */
export type Node = { kind: "object"; of: [name: string, value: Node][] } | { kind: "array"; of: Node[] } | { kind: "string" | "number" | "word"; text: string }

const deepest = 1000

/** Takes a JSON text apart. It throws RangeError for one that is nested too deeply to be shown as a tree. */
export function parse(s: string): Node {
  let i = 0
  const value = (depth: number): Node => {
    if (depth > deepest) throw new RangeError("nested too deeply")
    i = skip(s, i)
    if (s[i] === "{") {
      const of: [string, Node][] = []
      for (i = skip(s, i + 1); s[i] === '"'; ) {
        const to = end(s, i)
        const name = s.slice(i, to)
        i = skip(s, to) + 1
        of.push([name, value(depth + 1)])
        i = skip(s, i)
        if (s[i] === ",") i = skip(s, i + 1)
      }
      i++
      return { kind: "object", of }
    }
    if (s[i] === "[") {
      const of: Node[] = []
      for (i = skip(s, i + 1); i < s.length && s[i] !== "]"; ) {
        of.push(value(depth + 1))
        i = skip(s, i)
        if (s[i] === ",") i = skip(s, i + 1)
      }
      i++
      return { kind: "array", of }
    }
    const to = end(s, i), text = s.slice(i, to)
    i = to
    return { kind: text[0] === '"' ? "string" : /[-\d]/.test(text[0] ?? "") ? "number" : "word", text }
  }
  return value(0)
}
