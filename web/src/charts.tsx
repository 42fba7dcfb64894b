// Charts as SVG: text that tests and screen readers can read, and that can be saved as it is.
import type { JSX } from "preact";
import { Placement, Roofline, Slice, View, si } from "./api";

const W = 420;
export function save(name: string, data: string, type: string) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([data], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
const KEPT = ["fill", "stroke", "stroke-width", "opacity", "font-size", "font-family"];
export function saveFigure(figure: Element, name: string) {
  const svg = figure.querySelector("svg")!;
  const copy = svg.cloneNode(true) as SVGElement;
  const from = [svg, ...svg.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
  from.forEach((node, i) => KEPT.forEach((key) => to[i].setAttribute(key, getComputedStyle(node).getPropertyValue(key))));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  save(`${name}.svg`, new XMLSerializer().serializeToString(copy), "image/svg+xml");
}
export function Figure(props: { title: string; text: string; name: string; children: JSX.Element }) {
  return (
    <figure style={{ margin: 0 }} data-figure={props.name}>
      <h3>{props.title} <button type="button" aria-label={`Save ${props.title} as SVG`}
        onClick={(e) => saveFigure(e.currentTarget.closest("figure")!, props.name)}>SVG</button></h3>
      {props.children}
      <figcaption class="warn">{props.text}</figcaption>
    </figure>
  );
}
const log = (v: number) => Math.log10(v);

export function RooflineChart({ roofline, phase }: { roofline: Roofline; phase: string }) {
  const H = 210, L = 52, B = 34, R = 24, points = roofline.points;
  const ridge = roofline.peak_ops_per_s / roofline.bytes_per_s;
  const xs = [ridge, ...points.map((p) => p.intensity)], ys = [roofline.peak_ops_per_s, ...points.map((p) => p.ops_per_s)];
  const x0 = Math.floor(log(Math.min(...xs)) - 0.2), x1 = Math.ceil(log(Math.max(...xs)) + 0.2);
  const y0 = Math.floor(log(Math.min(...ys))), y1 = Math.ceil(log(Math.max(...ys)) + 0.05);
  const x = (v: number) => L + ((log(v) - x0) / (x1 - x0)) * (W - L - R), y = (v: number) => H - B - ((log(v) - y0) / (y1 - y0)) * (H - B - 8);
  const ticks = (a: number, b: number) => Array.from({ length: b - a + 1 }, (_, i) => 10 ** (a + i));
  const total = points.reduce((sum, p) => sum + p.seconds, 0);
  const low = Math.max(10 ** x0, 10 ** y0 / roofline.bytes_per_s);
  return (
    <Figure title={`Roofline, ${phase}`} name={`roofline-${phase}`} text={`Peak ${si(roofline.peak_ops_per_s, "op/s")}, DRAM ${si(roofline.bytes_per_s, "B/s")} (bounds); ridge at ${ridge.toPrecision(3)} op/B. A dot is a kernel (estimate), its area the time.`}>
      <svg viewBox={`0 0 ${W} ${H}`} role="img" aria-label={`Roofline of ${phase}: ${points.length} kernels`}>
        {ticks(x0, x1).map((t) => <g key={t}><line class="grid" x1={x(t)} x2={x(t)} y1={8} y2={H - B} /><text x={x(t)} y={H - B + 13} text-anchor="middle">{si(t, "")}</text></g>)}
        {ticks(y0, y1).map((t) => <g key={t}><line class="grid" x1={L} x2={W - R} y1={y(t)} y2={y(t)} /><text x={L - 4} y={y(t) + 4} text-anchor="end">{si(t, "")}</text></g>)}
        <path class="line" d={`M${x(low)},${y(low * roofline.bytes_per_s)} L${x(ridge)},${y(roofline.peak_ops_per_s)} L${W - R},${y(roofline.peak_ops_per_s)}`} />
        {points.map((p, i) => <circle key={i} class={p.bound_by} cx={x(p.intensity)} cy={y(p.ops_per_s)} r={3 + 9 * Math.sqrt(p.seconds / total)} opacity={0.75}><title>{`${p.name}: ${si(p.ops_per_s, "op/s")} at ${p.intensity.toPrecision(3)} op/B, ${si(p.seconds, "s")} (estimate)`}</title></circle>)}
        <text class="soft" x={W / 2} y={H - 4} text-anchor="middle">operations per DRAM byte</text>
        <text class="soft" x={10} y={H / 2} text-anchor="middle" transform={`rotate(-90 10 ${H / 2})`}>op/s</text>
      </svg>
    </Figure>
  );
}

export function Timeline({ slices, phase, engine }: { slices: Slice[]; phase: string; engine: string }) {
  const total = slices.reduce((sum, s) => sum + s.seconds, 0), x = (s: number) => 44 + (s / total) * (W - 52);
  return (
    <Figure title={`Timeline, ${phase}`} name={`timeline-${phase}`} text={`${si(total, "s")} on ${engine} in program order; layers of one kind are drawn together (estimate).`}>
      <svg viewBox={`0 0 ${W} 52`} role="img" aria-label={`Timeline of ${phase}, ${slices.length} stretches`}>
        <text x={4} y={24}>{engine}</text>
        {slices.map((s, i) => <rect key={i} class={`seg ${s.bound_by}`} x={x(s.start_s)} y={6} width={Math.max(0.3, (s.seconds / total) * (W - 52))} height={28}><title>{`${s.name} x${s.count}: ${si(s.seconds, "s")}, ${s.bound_by}`}</title></rect>)}
        <text x={44} y={48} class="soft">0</text><text x={W - 8} y={48} class="soft" text-anchor="end">{si(total, "s")}</text>
      </svg>
    </Figure>
  );
}

export function PlacementChart({ placement }: { placement: Placement }) {
  const lanes = ["cpu", "gpu", "ane"], names = Object.keys(placement.phases);
  return (
    <>
      {names.map((phase) => {
        const segments = placement.phases[phase].segments;
        const total = segments.reduce((sum, s) => sum + s.seconds + s.handover_s, 0);
        let at = 0;
        return (
          <Figure key={phase} title={`Best placement, ${phase}`} name={`placement-${phase}`} text={`${si(placement.phases[phase].latency_s, "s")} on ${placement.engines_used.join(" + ")}, ${placement.proof.proven ? "proven optimal" : `within ${(100 * placement.proof.gap).toFixed(1)} % of optimal`} (${placement.kind}).`}>
            <svg viewBox={`0 0 ${W} 76`} role="img" aria-label={`Placement of ${phase}: ${segments.length} segments`}>
              {lanes.map((lane, i) => <g key={lane}><text x={4} y={18 + 22 * i}>{lane}</text><line class="grid" x1={40} x2={W - 4} y1={24 + 22 * i} y2={24 + 22 * i} /></g>)}
              {segments.map((s, i) => {
                const start = 40 + (at / total) * (W - 46), width = Math.max(0.4, (s.seconds / total) * (W - 46));
                at += s.seconds + s.handover_s;
                return <rect key={i} class="dot" x={start} y={5 + 22 * Math.max(0, lanes.indexOf(s.engine))} width={width} height={18}><title>{`${s.engine}: ${s.first} to ${s.last}, ${s.ops} ops, ${si(s.seconds, "s")}. ${s.why}`}</title></rect>;
              })}
            </svg>
          </Figure>
        );
      })}
    </>
  );
}

export function MemoryChart({ view }: { view: View }) {
  const memory = view.prediction.memory, phase = Object.keys(view.passes)[0], curve = view.passes[phase]?.activation_bytes ?? [];
  const most = Math.max(memory.limit_bytes, memory.total_bytes), bar = (v: number) => (v / most) * (W - 12);
  const peak = Math.max(1, ...curve), step = (W - 12) / Math.max(1, curve.length - 1);
  const parts: [string, number, string][] = [["weights", memory.weights_bytes, "compute"], ["cache", memory.kv_cache_bytes, "memory"], ["activations", memory.activation_peak_bytes, "dispatch"]];
  let at = 6;
  return (
    <Figure title="Memory" name="memory" text={`${parts.map(([n, v]) => `${n} ${si(v, "B")}`).join(", ")}; limit ${si(memory.limit_bytes, "B")}. Below: activations alive over one pass of ${phase}, most ${si(peak, "B")}.`}>
      <svg viewBox={`0 0 ${W} 120`} role="img" aria-label={`Memory: ${si(memory.total_bytes, "B")} of ${si(memory.limit_bytes, "B")}`}>
        <rect x={6} y={6} width={bar(memory.limit_bytes)} height={20} fill="none" class="axis" />
        {parts.map(([name, value, color]) => { const x = at; at += bar(value); return <rect key={name} class={color} x={x} y={6} width={bar(value)} height={20}><title>{`${name}: ${si(value, "B")}`}</title></rect>; })}
        <path class="area" d={`M6,112 ${curve.map((v, i) => `L${6 + i * step},${112 - (v / peak) * 74}`).join(" ")} L${6 + (curve.length - 1) * step},112 Z`} />
        <line class="axis" x1={6} x2={W - 6} y1={112} y2={112} />
      </svg>
    </Figure>
  );
}
