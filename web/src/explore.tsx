// Explorations: start one, watch its front grow, brush it, open a design.
import { useEffect, useState } from "preact/hooks";
import { Config, Design, RunStatus, get, post } from "./api";
import { Figure, save } from "./charts";

const EXAMPLE = {
  name: "wider-gpu", chip: "m4",
  knobs: { "gpu.cores": { from: 6, to: 40, steps: 18 }, "dram.bus_width": ["64bit", "128bit", "192bit", "256bit", "384bit", "512bit"], "slc.size": ["8MiB", "16MiB", "32MiB", "64MiB"] },
  workloads: { chat: { model: "qwen3-4b", weights: "q4_0", prompt: 512, generate: 128 } },
  objectives: ["latency_s", "area_mm2"], constraints: ["power_w <= 60"], search: { method: "grid", batch: 24 },
};
interface RunLine { folder: string; name: string; state: string; designs: number; front_size: number | null; created: string }

export function Explore(props: { onOpen: (config: Config) => void; start: Config }) {
  const [text, setText] = useState(() => JSON.stringify({ ...EXAMPLE, chip: props.start.chip }, null, 1));
  const [runs, setRuns] = useState<RunLine[]>([]), [status, setStatus] = useState<RunStatus | null>(null);
  const [error, setError] = useState(""), [chosen, setChosen] = useState<number[]>([]);
  const list = () => get<{ runs: RunLine[] }>("/runs").then((r) => setRuns(r.runs), (e: Error) => setError(e.message));
  useEffect(() => void list(), [status?.state]);
  useEffect(() => {
    if (status?.state !== "running") return;
    const timer = setTimeout(() => get<RunStatus>(`/runs/${status.run}`).then(setStatus, (e: Error) => setError(e.message)), 400);
    return () => clearTimeout(timer);
  }, [status]);
  const act = (promise: Promise<RunStatus>) => { setError(""); setChosen([]); promise.then(setStatus, (e: Error) => setError(e.message)); };
  const start = () => {
    let study: unknown;
    try { study = JSON.parse(text); } catch (e) { setError(`The study is not JSON: ${(e as Error).message}`); return; }
    act(post<RunStatus>("/runs", { study }));
  };
  const marked = status?.front.filter((d) => chosen.includes(d.index)) ?? [];
  return (
    <div class="slots">
      <section class="card" aria-label="Study">
        <h2>Study</h2>
        <label for="study" class="warn">What varies, for which workloads, to what end: a study of <code>orchard explore</code>, as JSON.</label>
        <textarea id="study" rows={22} spellcheck={false} value={text} onInput={(e) => setText(e.currentTarget.value)} />
        <div class="row"><button type="button" onClick={start}>Start exploration</button>
          <button type="button" onClick={() => save("study.yaml", text, "application/yaml")}>Download study</button></div>
        <h3>Runs</h3>
        {runs.length === 0 && <p class="warn">No runs yet.</p>}
        <ul>{runs.map((r) => <li key={r.folder}><button type="button" onClick={() => act(get<RunStatus>(`/runs/${r.folder}`))}>{r.folder}</button> <span class="warn">{r.state}, {r.designs.toLocaleString()} designs</span></li>)}</ul>
      </section>
      <section class="card" aria-label="Front" style={{ minWidth: 0 }}>
        <h2>Pareto front</h2>
        {error && <p class="error" role="alert">{error}</p>}
        {!status && <p class="warn">Start an exploration, or choose a run.</p>}
        {status && (
          <>
            <p role="status" data-run-state={status.state}>{status.name} on {status.chip}: {status.state}, {status.evaluated.toLocaleString()} of {status.designs.toLocaleString()} designs, {status.front_size} on the front (estimates)</p>
            <progress aria-label="Progress" max={status.designs} value={status.evaluated} />
            {status.message && <p class="error" role="alert">{status.message}</p>}
            <div class="row">
              {status.state === "running" && <button type="button" onClick={() => act(post<RunStatus>(`/runs/${status.run}/stop`, {}))}>Stop</button>}
              {status.state === "stopped" && <button type="button" onClick={() => act(post<RunStatus>(`/runs/${status.run}/resume`, {}))}>Resume</button>}
              <button type="button" onClick={() => save(`${status.run}.json`, JSON.stringify(status, null, 1), "application/json")}>Download JSON</button>
            </div>
            {status.front.length > 0 && status.objectives.length > 1 && <Front status={status} chosen={chosen} onChosen={setChosen} />}
            <Designs designs={marked.length ? marked : status.front} onOpen={props.onOpen} />
            <h3>The same on the command line</h3><p><code>orchard explore study.yaml</code>, then <code>orchard runs show orchard-runs/{status.run}</code></p>
          </>
        )}
      </section>
    </div>
  );
}

function Front({ status, chosen, onChosen }: { status: RunStatus; chosen: number[]; onChosen: (c: number[]) => void }) {
  const W = 520, H = 320, L = 56, B = 36, [a, b] = status.objectives;
  const [from, setFrom] = useState<[number, number] | null>(null), [to, setTo] = useState<[number, number] | null>(null);
  const points = status.front.map((d) => [d.metrics[a.metric] ?? 0, d.metrics[b.metric] ?? 0]);
  const all = [...points, ...status.cloud.map((c) => [c[0] ?? 0, c[1] ?? 0])];
  const [x0, x1, y0, y1] = [0, 1].flatMap((i) => { const v = all.map((p) => p[i]); const lo = Math.min(...v), hi = Math.max(...v); const pad = (hi - lo || hi || 1) * 0.05; return [lo - pad, hi + pad]; });
  const x = (v: number) => L + ((v - x0) / (x1 - x0)) * (W - L - 10), y = (v: number) => H - B - ((v - y0) / (y1 - y0)) * (H - B - 10);
  const at = (e: PointerEvent): [number, number] => { const r = (e.currentTarget as Element).getBoundingClientRect(); return [((e.clientX - r.left) / r.width) * W, ((e.clientY - r.top) / r.height) * H]; };
  const end = () => {
    if (from && to) {
      const inside = (p: number[]) => Math.min(from[0], to[0]) <= x(p[0]) && x(p[0]) <= Math.max(from[0], to[0]) && Math.min(from[1], to[1]) <= y(p[1]) && y(p[1]) <= Math.max(from[1], to[1]);
      onChosen(status.front.filter((_, i) => inside(points[i])).map((d) => d.index));
    }
    setFrom(null); setTo(null);
  };
  return (
    <Figure title={`${a.metric} against ${b.metric}`} name="front" text="Drag over the front to choose designs; the table below shows them. Grey: a sample of the other feasible designs.">
      <svg viewBox={`0 0 ${W} ${H}`} role="img" aria-label={`Pareto front of ${points.length} designs`} style={{ touchAction: "none" }}
        onPointerDown={(e) => { setFrom(at(e)); setTo(null); }} onPointerMove={(e) => from && setTo(at(e))} onPointerUp={end}>
        {[0, 0.25, 0.5, 0.75, 1].map((t) => { const vx = x0 + t * (x1 - x0), vy = y0 + t * (y1 - y0); return <g key={t}><line class="grid" x1={x(vx)} x2={x(vx)} y1={10} y2={H - B} /><line class="grid" x1={L} x2={W - 10} y1={y(vy)} y2={y(vy)} /><text x={x(vx)} y={H - B + 14} text-anchor="middle">{vx.toPrecision(3)}</text><text x={L - 4} y={y(vy) + 4} text-anchor="end">{vy.toPrecision(3)}</text></g>; })}
        {status.cloud.map((c, i) => <circle key={i} class="cloud" cx={x(c[0] ?? 0)} cy={y(c[1] ?? 0)} r={1.7} />)}
        {points.map((p, i) => <circle key={i} class="dot" cx={x(p[0])} cy={y(p[1])} r={chosen.includes(status.front[i].index) ? 7 : 4.5}><title>{JSON.stringify(status.front[i].knobs)}</title></circle>)}
        {from && to && <rect class="brush" x={Math.min(from[0], to[0])} y={Math.min(from[1], to[1])} width={Math.abs(to[0] - from[0])} height={Math.abs(to[1] - from[1])} />}
        <text class="soft" x={W / 2} y={H - 4} text-anchor="middle">{a.metric}</text><text class="soft" x={12} y={H / 2} text-anchor="middle" transform={`rotate(-90 12 ${H / 2})`}>{b.metric}</text>
      </svg>
    </Figure>
  );
}

function Designs({ designs, onOpen }: { designs: Design[]; onOpen: (c: Config) => void }) {
  if (!designs.length) return null;
  const knobs = Object.keys(designs[0].knobs), metrics = Object.keys(designs[0].metrics);
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Designs">
      <table>
        <thead><tr><th scope="col">open</th>{[...knobs, ...metrics].map((n) => <th key={n} scope="col">{n}</th>)}</tr></thead>
        <tbody>{designs.slice(0, 100).map((d) => (
          <tr key={d.index}>
            <td>{Object.entries(d.open).map(([workload, config]) => <button key={workload} type="button" aria-label={`Open design ${d.index}, ${workload}`} onClick={() => onOpen(config)}>{workload}</button>)}</td>
            {knobs.map((k) => <td key={k}>{String(d.knobs[k])}</td>)}{metrics.map((m) => <td key={m}>{d.metrics[m]?.toPrecision(4) ?? ""}</td>)}
          </tr>))}</tbody>
      </table>
    </div>
  );
}
