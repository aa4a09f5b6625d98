// Numbers, times and states in words.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })

/** 1,204,118 */
export const count = (n: number) => whole.format(n)

const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 })

/** 0.017 below 1, 4.8 below 100, 1,204 above. */
export const rate = (n: number) => (n < 1 ? fine.format(n) : n < 100 ? tenth.format(n) : whole.format(n))

/** 1.2 M, for where there is little room. */
export function brief(n: number): string {
  if (n < 10_000) return whole.format(n)
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]] as const)
    if (n >= size) return (n / size < 100 ? tenth : whole).format(n / size) + " " + unit
  return whole.format(n)
}

export function bytes(n: number): string {
  for (const [unit, size] of [["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3]] as const) if (n >= size) return tenth.format(n / size) + " " + unit
  return whole.format(n) + " B"
}

/** A share as a percentage that never rounds up to 100. */
export function share(of: number): string {
  if (of >= 1) return "100 %"
  const p = Math.floor(of * 10_000) / 100
  return (p >= 99 ? p.toFixed(2) : tenth.format(p)) + " %"
}

/** Milliseconds as people say them: 0.4 ms, 38 ms, 11.8 s, 2 min 10 s, 3 h 20 min, 4 d. */
export function took(ms: number): string {
  if (ms < 10) return tenth.format(ms) + " ms"
  if (ms < 1000) return whole.format(ms) + " ms"
  const s = ms / 1000
  if (s < 60) return tenth.format(s) + " s"
  const min = Math.floor(s / 60)
  if (min < 60) return `${min} min${s % 60 >= 1 ? ` ${Math.floor(s % 60)} s` : ""}`
  const h = Math.floor(min / 60)
  if (h < 48) return `${h} h${min % 60 ? ` ${min % 60} min` : ""}`
  return `${Math.floor(h / 24)} d`
}

const units: Record<string, number> = { ns: 1e-6, us: 1e-3, "µs": 1e-3, ms: 1, s: 1e3, m: 6e4, h: 36e5 }

/** A duration as Go writes it, in milliseconds. */
export function millis(d: string | undefined): number {
  let sum = 0
  for (const [, n, unit] of (d ?? "").matchAll(/([\d.]+)(ns|us|µs|ms|s|m|h)/g)) sum += Number(n) * units[unit!]!
  return d?.startsWith("-") ? -sum : sum
}

/** A duration as Go writes it, in words. */
export const span = (d: string | undefined) => took(millis(d))

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" })
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" })
const year = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" })

/** 14:02:11 today, 22 Nov 14:02:11 before. */
export function when(t: string | undefined): string {
  if (!t) return "–"
  const d = new Date(t), now = new Date()
  if (d.toDateString() === now.toDateString()) return clock.format(d)
  return (d.getFullYear() === now.getFullYear() ? day : year).format(d) + " " + clock.format(d)
}

/** Exactly, for titles. */
export const exactly = (t: string) => new Date(t).toISOString().replace("T", " ").replace("Z", " UTC")

/** 3 min ago, in 20 s. */
export function ago(t: string, now = Date.now()): string {
  const ms = now - new Date(t).getTime()
  return ms >= 0 ? (ms < 1500 ? "now" : took(Math.floor(ms / 1000) * 1000) + " ago") : "in " + took(Math.ceil(-ms / 1000) * 1000)
}

/** A sentence begins with a capital. */
export const capital = (s: string) => s.slice(0, 1).toUpperCase() + s.slice(1)

/** What a person should call a list of one or several. */
export const some = (n: number, one: string, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`
