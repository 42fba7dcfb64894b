// One configuration: its controls, its numbers, its pictures.
import { useEffect, useRef, useState } from "preact/hooks";
import { Config, Figure as ChipFigure, Placement, View, Why, get, post, si, upload } from "./api";
import { MemoryChart, PlacementChart, RooflineChart, Timeline, save } from "./charts";
import { AdvicePanel } from "./advice";
import type { Catalogue } from "./main";

interface Knob { path: string; label: string; unit: string; scale: number; min: number; max: number; log?: boolean }
const KNOBS: Knob[] = [
  { path: "dram.bandwidth", label: "Bandwidth", unit: "GB/s", scale: 1e9, min: 20, max: 2000, log: true },
  { path: "slc.size", label: "SLC (SRAM)", unit: "MiB", scale: 2 ** 20, min: 1, max: 256, log: true },
  { path: "gpu.cores", label: "GPU cores", unit: "", scale: 1, min: 1, max: 128 },
  { path: "gpu.clock", label: "GPU clock", unit: "GHz", scale: 1e9, min: 0.4, max: 3 },
  { path: "ane.cores", label: "ANE cores", unit: "", scale: 1, min: 4, max: 128 },
  { path: "dram.capacity", label: "Memory", unit: "GiB", scale: 2 ** 30, min: 4, max: 512, log: true },
];
const SIZES: { name: "prompt" | "generate" | "depth" | "batch"; label: string; min: number; max: number; initial: number }[] = [
  { name: "prompt", label: "Prompt", min: 1, max: 32768, initial: 512 }, { name: "generate", label: "Generate", min: 1, max: 8192, initial: 128 },
  { name: "depth", label: "Context before", min: 0, max: 131072, initial: 0 }, { name: "batch", label: "Batch", min: 1, max: 256, initial: 1 },
];
const whole = (unit: string) => unit === "";

function Slider(props: { id: string; label: string; unit: string; value: number; min: number; max: number; log?: boolean; step?: number; changed?: boolean; why?: string; onValue: (v: number) => void; onReset: () => void }) {
  const { min, max } = props, log = props.log && min > 0;
  const to = (v: number) => (log ? Math.log(Math.max(v, min) / min) / Math.log(max / min) : (v - min) / (max - min)) * 1000;
  const from = (p: number) => (log ? min * (max / min) ** (p / 1000) : min + (p / 1000) * (max - min));
  const round = (v: number) => (props.step === 1 ? Math.round(v) : Number(v.toPrecision(3)));
  return (
    <>
      <label for={props.id}>{props.label}{props.unit && `, ${props.unit}`}</label>
      <div class="slide">
        <input id={props.id} type="range" min={0} max={1000} step={1} value={to(props.value)} title={props.why} aria-valuetext={`${props.value} ${props.unit}`}
          onInput={(e) => props.onValue(round(from(Number(e.currentTarget.value))))} />
        <span class="row" style={{ flexWrap: "nowrap" }}>
          <input type="number" aria-label={`${props.label} value`} value={props.value} min={0} step="any" style={{ width: "82px" }}
            onChange={(e) => Number(e.currentTarget.value) >= 0 && props.onValue(Number(e.currentTarget.value))} />
          <button type="button" aria-label={`Reset ${props.label}`} disabled={!props.changed} onClick={props.onReset}>↺</button>
        </span>
      </div>
    </>
  );
}

export function Number_(props: { label: string; value: string; why?: Why; name: string; onTip: (tip: Tip | null) => void; extra?: string }) {
  const show = (e: Event) => props.onTip({ at: (e.currentTarget as Element).getBoundingClientRect(), label: props.label, value: props.value, why: props.why });
  return (
    <button type="button" class="number" data-number={props.name} aria-describedby="tip" onMouseEnter={show} onFocus={show} onClick={show}
      onMouseLeave={() => props.onTip(null)} onBlur={() => props.onTip(null)}>
      <span>{props.label}{props.why && ` · ${props.why.kind}`}</span><b>{props.value}</b>{props.extra && <span>{props.extra}</span>}
    </button>
  );
}
export interface Tip { at: DOMRect; label: string; value: string; why?: Why }

export function Slot(props: { index: number; config: Config; catalogue: Catalogue; onConfig: (c: Config) => void; onRemove?: () => void; onTip: (tip: Tip | null) => void; onFiles: () => void; onOpen: (c: Config) => void }) {
  const { config, catalogue } = props;
  const [view, setView] = useState<View | null>(null), [error, setError] = useState(""), [busy, setBusy] = useState("");
  const [figures, setFigures] = useState<Record<string, ChipFigure>>({}), [place, setPlace] = useState<Placement | string>("");
  const [phase, setPhase] = useState("");
  const asked = useRef(0), flight = useRef(false), latest = useRef<Config | null>(null);
  const key = JSON.stringify(config);

  useEffect(() => {
    get<{ figures: Record<string, ChipFigure> }>(`/chips/${encodeURIComponent(config.chip)}`).then((c) => setFigures(c.figures), () => setFigures({}));
  }, [config.chip]);
  useEffect(() => {
    const abort = new AbortController();
    latest.current = config;
    if (!flight.current) void follow();
    const later = setTimeout(() => {
      setPlace("Placing…");
      const { engine, ...rest } = config;
      post<Placement>("/place", rest, abort.signal).then(setPlace, (e: Error) => e.name !== "AbortError" && setPlace(e.message));
    }, 400);
    return () => { abort.abort(); clearTimeout(later); };
  }, [key]);

  // One request at a time, always for the newest configuration: a drag never queues up behind itself.
  const follow = async () => {
    flight.current = true;
    while (latest.current) {
      const next = latest.current, since = asked.current;
      latest.current = null;
      asked.current = 0;
      try {
        const found = await post<View>("/view", next);
        setView(found);
        setError("");
        if (since) requestAnimationFrame(() => performance.measure("redraw", { start: since, end: performance.now() }));
      } catch (e) { setError((e as Error).message); }
    }
    flight.current = false;
  };
  const change = (part: Partial<Config>) => { asked.current ||= performance.now(); props.onConfig({ ...config, ...part }); };
  const setFigure = (path: string, text: string | null) => {
    const set = { ...config.set };
    if (text === null) delete set[path]; else set[path] = text;
    change({ set });
  };
  const read = async (name: string, opened: Promise<{ id: string }>) => {
    setBusy(`Reading ${name}…`);
    try {
      const found = await opened;
      props.onFiles();
      props.onConfig({ ...config, model: found.id, weights: undefined, apply: undefined });
    } catch (e) { setError((e as Error).message); }
    setBusy("");
  };
  const take = (file: File | undefined) => { if (file) void read(file.name, upload<{ id: string }>(file)); };
  const choose = (name: string) => {
    if (catalogue.folder.includes(name)) void read(name, post<{ id: string }>("/files", { name }));
    else change({ model: name, weights: undefined, apply: undefined });
  };
  const id = (name: string) => `s${props.index}-${name}`;
  const knobs = KNOBS.filter((k) => figures[k.path]?.si != null || config.set?.[k.path]);
  const names = view ? Object.keys(view.prediction.phases) : [];
  const shown = names.includes(phase) ? phase : names[names.length - 1] ?? "";
  const drawn = view && view.rooflines[shown] ? shown : Object.keys(view?.rooflines ?? {})[0];
  return (
    <section class="card" aria-label={`Configuration ${props.index + 1}`} data-slot={props.index}>
      <div class="row"><h2 style={{ flex: 1 }}>Configuration {props.index + 1}</h2>{props.onRemove && <button type="button" onClick={props.onRemove}>Remove</button>}</div>
      <div class="form">
        <label for={id("model")}>Model</label>
        <input id={id("model")} list="models" value={config.model} onChange={(e) => choose(e.currentTarget.value)} />
        <label for={id("file")}>or a file</label>
        <div class="drop" onDragOver={(e) => { e.preventDefault(); e.currentTarget.classList.add("over"); }} onDragLeave={(e) => e.currentTarget.classList.remove("over")}
          onDrop={(e) => { e.preventDefault(); e.currentTarget.classList.remove("over"); take(e.dataTransfer?.files[0]); }}>
          <input id={id("file")} type="file" accept={catalogue.suffixes.join(",")} onChange={(e) => take(e.currentTarget.files?.[0])} />
          <span>{busy || "Pick or drop; the file stays on this machine."}</span>
        </div>
        <label for={id("chip")}>Chip</label>
        <select id={id("chip")} value={config.chip} onChange={(e) => change({ chip: e.currentTarget.value, set: {} })}>
          {catalogue.chips.map((c) => <option key={c.id} value={c.id}>{c.name}</option>)}
        </select>
        <label for={id("weights")}>Weights</label>
        <select id={id("weights")} value={config.weights ?? ""} onChange={(e) => change({ weights: e.currentTarget.value || undefined })}>
          <option value="">the model's own</option>{catalogue.weights.map((w) => <option key={w}>{w}</option>)}
        </select>
        <label for={id("kv")}>Cache format</label>
        <select id={id("kv")} value={config.kv ?? "f16"} onChange={(e) => change({ kv: e.currentTarget.value })}>{catalogue.kv.map((w) => <option key={w}>{w}</option>)}</select>
        <label for={id("engine")}>Engine</label>
        <select id={id("engine")} value={config.engine ?? "auto"} onChange={(e) => change({ engine: e.currentTarget.value })}>{["auto", "cpu", "gpu", "ane"].map((w) => <option key={w}>{w}</option>)}</select>
        <label for={id("runtime")}>Runtime</label>
        <select id={id("runtime")} value={config.runtime ?? ""} onChange={(e) => change({ runtime: e.currentTarget.value || undefined })}><option value="">chosen by engine and weights</option>{catalogue.runtimes.map((w) => <option key={w}>{w}</option>)}</select>
        <label for={id("fidelity")}>Kind</label>
        <select id={id("fidelity")} value={config.fidelity ?? "estimate"} onChange={(e) => change({ fidelity: e.currentTarget.value })}>{["bound", "estimate", "simulation"].map((w) => <option key={w}>{w}</option>)}</select>
        {(config.apply?.length ?? 0) > 0 && <><span class="warn">Techniques</span><div class="row">{config.apply!.map((t) => <button key={t} type="button" aria-label={`Remove technique ${t}`}
          onClick={() => change({ apply: config.apply!.length > 1 ? config.apply!.filter((o) => o !== t) : undefined })}>{t} ✕</button>)}</div></>}
        {SIZES.map((s) => <Slider key={s.name} id={id(s.name)} label={s.label} unit="" min={s.min} max={s.max} log={s.min > 0} step={1} value={config[s.name] ?? s.initial} changed={config[s.name] !== undefined}
          onValue={(v) => change({ [s.name]: Math.round(v) })} onReset={() => change({ [s.name]: undefined })} />)}
        {knobs.map((k) => {
          const figure = figures[k.path], own = config.set?.[k.path];
          const value = own ? parseFloat(own) : Number(((figure?.si ?? 0) / k.scale).toPrecision(4));
          return <Slider key={k.path} id={id(k.path)} label={k.label} unit={k.unit} min={k.min} max={k.max} log={k.log} step={whole(k.unit) ? 1 : undefined} value={value} changed={own !== undefined}
            why={figure && `${figure.about}: ${figure.value} ${figure.unit} (${figure.kind}, ${figure.source})`} onValue={(v) => setFigure(k.path, `${v}${k.unit}`)} onReset={() => setFigure(k.path, null)} />;
        })}
      </div>
      {error && <p class="error" role="alert">{error}</p>}
      {view && (
        <>
          <div class="row" role="group" aria-label="Phase" style={{ marginTop: "12px" }}>{names.map((n) => <button key={n} type="button" aria-pressed={n === shown} onClick={() => setPhase(n)}>{n}</button>)}</div>
          <Numbers view={view} phase={shown} onTip={props.onTip} />
          {view.prediction.warnings.map((w) => <p key={w} class="warn">⚠ {w}</p>)}
          <div class="figures">
          {drawn && <><Timeline slices={view.timelines[drawn]} phase={drawn} engine={view.prediction.engine} /><RooflineChart roofline={view.rooflines[drawn]} phase={drawn} /></>}
          <MemoryChart view={view} />
          {typeof place === "string" ? <p class="warn" role="status">{place}</p> : <PlacementChart placement={place} />}
          </div>
          <p class="warn"><span class="key compute" /> compute <span class="key memory" /> memory <span class="key dispatch" /> dispatch</p>
          <details><summary>Breakdown of {shown} by op (estimate)</summary><Breakdown view={view} phase={shown} /></details>
          <AdvicePanel id={id("goal")} config={config} onOpen={props.onOpen} />
          <h3>The same on the command line</h3>
          <p><code data-command>{view.command}</code></p>
          <div class="row">
            <button type="button" onClick={() => void navigator.clipboard?.writeText(view.command)}>Copy command</button>
            <button type="button" onClick={() => save("view.json", JSON.stringify(view, null, 1), "application/json")}>Download JSON</button>
            <button type="button" onClick={() => save(`breakdown-${shown}.csv`, csv(view, shown), "text/csv")}>Download CSV</button>
          </div>
        </>
      )}
    </section>
  );
}

function Numbers({ view, phase, onTip }: { view: View; phase: string; onTip: (tip: Tip | null) => void }) {
  const p = view.prediction, found = p.phases[phase], memory = p.memory, why = view.why;
  if (!found) return null;
  const cause = Object.entries(found.bound_by).sort((a, b) => b[1] - a[1])[0];
  const range = (v: [number, number], unit: string) => `80 %: ${si(v[0], unit)} to ${si(v[1], unit)}`;
  return (
    <div class="numbers" aria-live="off">
      <Number_ label={phase === "decode" ? "Time per token" : "Latency"} name={`${phase}.latency_s`} value={si(found.latency_s, "s")} extra={range(found.interval_s, "s")} why={withInterval(why[`${phase}.latency_s`], why[`${phase}.interval_s`])} onTip={onTip} />
      <Number_ label="Tokens per second" name={`${phase}.tokens_per_s`} value={si(found.tokens_per_s, "/s")} why={why[`${phase}.tokens_per_s`]} onTip={onTip} />
      {p.ttft_s !== null && <Number_ label="First token" name="ttft_s" value={si(p.ttft_s, "s")} why={why.ttft_s} onTip={onTip} />}
      <Number_ label="Energy" name={`${phase}.energy_j`} value={si(found.energy_j, "J")} extra={range(found.energy_interval_j, "J")} why={why[`${phase}.energy_j`]} onTip={onTip} />
      <Number_ label="Bound" name={`${phase}.bound_s`} value={si(found.bound_s, "s")} why={why[`${phase}.bound_s`]} onTip={onTip} />
      <Number_ label={`Bound by ${cause[0]}`} name={`${phase}.bound_by`} value={`${(100 * cause[1]).toFixed(0)} %`} why={why[`${phase}.bound_by`]} onTip={onTip} />
      <Number_ label="Memory" name="memory.total_bytes" value={si(memory.total_bytes, "B")} extra={`${memory.fits ? "fits in" : "does not fit in"} ${si(memory.limit_bytes, "B")}`} why={why["memory.total_bytes"]} onTip={onTip} />
      <Number_ label="DRAM traffic" name={`${phase}.dram_bytes`} value={si(found.dram_bytes, "B")} why={why[`${phase}.dram_bytes`]} onTip={onTip} />
    </div>
  );
}

function withInterval(of: Why | undefined, interval: Why | undefined): Why | undefined {
  return of && interval ? { ...of, text: `${of.text} ${interval.text}` } : of;
}

const COLUMNS = ["group", "name", "format", "count", "seconds", "compute_s", "memory_s", "dispatch_s", "ops", "bytes"] as const;
function csv(view: View, phase: string): string {
  const rows = view.prediction.phases[phase]?.breakdown ?? [];
  return [COLUMNS.join(","), ...rows.map((r) => COLUMNS.map((c) => r[c]).join(","))].join("\n") + "\n";
}
function Breakdown({ view, phase }: { view: View; phase: string }) {
  const rows = view.prediction.phases[phase]?.breakdown ?? [], total = view.prediction.phases[phase]?.latency_s ?? 1;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Breakdown table">
      <table>
        <thead><tr><th scope="col">op</th><th scope="col">format</th><th scope="col">launches</th><th scope="col">time</th><th scope="col">share</th><th scope="col">ops</th><th scope="col">bytes</th></tr></thead>
        <tbody>{rows.map((r, i) => <tr key={i}><td>{r.group}.{r.name}</td><td>{r.format}</td><td>{r.count}</td><td>{si(r.seconds, "s")}</td><td>{((100 * r.seconds) / total).toFixed(1)} %</td><td>{si(r.ops, "")}</td><td>{si(r.bytes, "B")}</td></tr>)}</tbody>
      </table>
    </div>
  );
}
