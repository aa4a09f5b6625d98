import { useEffect, useRef } from "preact/hooks"
import uPlot from "uplot"
import { theme } from "../theme"

export interface Line {
  label: string
  /** The name of a token's colour. */
  color: string
  values: (number | null)[]
  fill?: boolean
  dash?: number[]
}

const hhmm = (seconds: number) => new Date(seconds * 1000).toTimeString().slice(0, 5)

const token = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

/** Lines over time. Times are RFC 3339; show writes a value. What it shows is told in a sentence too. */
export function Chart({ title, times, lines, show }: { title: string; times: string[]; lines: Line[]; show: (v: number) => string }) {
  const at = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>(null)
  const shape = lines.map((l) => l.label).join() + theme.value
  const data = [times.map((t) => new Date(t).getTime() / 1000), ...lines.map((l) => l.values)] as uPlot.AlignedData
  useEffect(() => {
    const box = at.current!
    const axis: uPlot.Axis = { stroke: token("--faint"), grid: { stroke: token("--rule"), width: 1 }, ticks: { show: false }, font: `12px ${token("--sans")}` }
    const span = (u: uPlot) => (u.data[0].at(-1) ?? 0) - (u.data[0][0] ?? 0)
    const u = new uPlot(
      {
        width: box.clientWidth,
        height: 180,
        legend: { show: true, live: true },
        cursor: { points: { size: 6 }, y: false },
        scales: { y: { range: (_u, _min, max) => [0, max > 0 ? max * 1.1 : 1] } },
        axes: [{ ...axis, space: 60, values: (u, splits) => splits.map((v) => (span(u) < 172_800 ? hhmm(v) : `${new Date(v * 1000).getDate()}.${new Date(v * 1000).getMonth() + 1}. ${hhmm(v)}`)) }, { ...axis, size: 64, values: (_u, splits) => splits.map((v) => show(v)) }],
        series: [
          { label: "at", value: (_u, v) => (v ? hhmm(v) : "–") },
          ...lines.map((l) => ({ label: l.label, stroke: token(l.color), width: 1.5, dash: l.dash, fill: l.fill ? token(l.color) + "22" : undefined, points: { show: (u: uPlot, i: number) => [...u.data[i]!].filter((v) => v != null).length < 3, size: 5 }, value: (_u: uPlot, v: number | null) => (v == null ? "–" : show(v)) })),
        ],
      },
      data,
      box,
    )
    plot.current = u
    const fit = new ResizeObserver(() => u.setSize({ width: box.clientWidth, height: 180 }))
    fit.observe(box)
    return () => {
      fit.disconnect()
      u.destroy()
    }
  }, [shape])
  useEffect(() => plot.current?.setData(data), [times.join(), JSON.stringify(lines.map((l) => l.values))])
  return (
    <figure class="chart" style={{ margin: 0 }}>
      <figcaption class="soft small">{title}</figcaption>
      <div ref={at} aria-hidden="true" />
      <p class="hidden">
        {lines.map((l) => {
          const seen = l.values.filter((v): v is number => v != null)
          return `${l.label}: at most ${show(Math.max(0, ...seen))}, now ${show(seen.at(-1) ?? 0)}. `
        })}
      </p>
    </figure>
  )
}
