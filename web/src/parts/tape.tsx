import type { Lane, Point } from "../wire"
import { count, when } from "./words"

/** The log as a tape: a column a step, failed tries below the line. Its numbers are in a table for those who cannot see it. */
export function Tape({ points, pick }: { points: Point[]; pick?: (from: string, to: string) => void }) {
  const width = 600, base = 64
  const most = Math.max(1, ...points.map((p) => p.events))
  const worst = Math.max(1, ...points.map((p) => p.failed))
  const column = width / Math.max(1, points.length)
  return (
    <>
      <svg class="tape" viewBox={`0 0 ${width} 86`} preserveAspectRatio="none" aria-hidden="true">
        {points.map((p, i) => {
          const h = p.events ? Math.max(1.5, (56 * p.events) / most) : 0
          const b = p.failed ? Math.max(2, (18 * p.failed) / worst) : 0
          const x = i * column
          return (
            <g key={p.time} class="minute" onClick={() => pick?.(p.time, points[i + 1]?.time ?? new Date().toISOString())}>
              <rect class="hit" x={x} y={0} width={column} height={86} />
              {h > 0 && <rect class="in" x={x + column * 0.1} y={base - h} width={column * 0.8} height={h} opacity={0.55 + (0.45 * i) / points.length} />}
              {b > 0 && <rect class="off" x={x + column * 0.1} y={66} width={column * 0.8} height={b} />}
              <title>{`${when(p.time)}: ${count(p.events)} events, ${count(p.taken)} deliveries, ${count(p.failed)} failed tries`}</title>
            </g>
          )
        })}
        <line x1={0} x2={width} y1={65} y2={65} />
      </svg>
      <p class="hidden">
        {count(points.reduce((n, p) => n + p.events, 0))} events, {count(points.reduce((n, p) => n + p.failed, 0))} failed tries, from {when(points[0]?.time)} on.
      </p>
    </>
  )
}

export const color: Record<string, string> = { "": "var(--water)", w: "var(--warn)", b: "var(--bad)", p: "var(--faint)", n: "var(--faint)" }

/** Where a lane is in the log, and how much is parked behind it. Lag is drawn by its magnitude: a few events behind can be seen beside a million. */
export function LaneLine({ lane, tone, head }: { lane: Lane; tone: string; head: number }) {
  const behind = head > 0 ? Math.min(1, Math.log10(1 + lane.lag) / Math.log10(10 + head)) : 0
  const at = 100 * (1 - behind * 0.94)
  const parked = lane.dead + lane.retrying + lane.waiting
  const ticks = parked ? Math.min(12, Math.ceil(Math.log2(1 + parked))) : 0
  return (
    <div class="line" style={{ color: color[tone] }} role="img" aria-label={`${count(lane.lag)} behind, ${count(parked)} parked`}>
      <i class="done" style={{ width: at + "%" }} />
      {Array.from({ length: ticks }, (_, i) => (
        <i key={i} class="parked" style={{ left: `max(0px, calc(${at}% - ${14 + i * 6}px))` }} />
      ))}
      <i class="head" style={{ left: `calc(${at}% - 8px)` }} />
    </div>
  )
}

/** A subscription's attempts over time, in a thumbnail. */
export function Spark({ all, failed }: { all: number[]; failed: number[] }) {
  const most = Math.max(1, ...all), column = 100 / Math.max(1, all.length)
  return (
    <svg class="spark" viewBox="0 0 100 18" preserveAspectRatio="none" aria-hidden="true">
      {all.map((n, i) => {
        const h = n ? Math.max(1, (18 * n) / most) : 0, b = n ? (h * (failed[i] ?? 0)) / n : 0
        return (
          <g key={i}>
            {h > b && <rect class="in" x={i * column} y={18 - h} width={column * 0.75} height={h - b} />}
            {b > 0 && <rect class="off" x={i * column} y={18 - b} width={column * 0.75} height={b} />}
          </g>
        )
      })}
    </svg>
  )
}
