// What to change about one configuration: the record of POST /advise, and each change as a configuration to open.
import { useEffect, useState } from "preact/hooks";
import { Config, post, si } from "./api";

interface Gain { figure: string; before: number; after: number; factor: number; factor_interval: [number, number] | null; basis: string }
interface Change {
  title: string; gain: Gain; side_effects: string[]; quality: { risk: string; text: string }; effort: string; reason: string;
  how: string[]; predict: string; priced_by: string; apply: string[]; fields: Record<string, unknown>; notes: string[];
}
interface Advice {
  recommendations: Change[]; combination: Change | null; tried: number; notes: string[];
  goals: { text: string; verdict: string; sentence: string }[];
}

const UNITS: Record<string, string> = { latency: "s", ttft: "s", tpot: "s", memory: "B", energy: "J", tokens_per_s: "/s", throughput: "/s" };
const times = (v: number) => `${v.toPrecision(3)}×`;
const family = (technique: string) => technique.split(":")[0];

// As `orchard predict` is given it: the change's fields, and its techniques in place of those of the same name.
function changed(config: Config, change: Change): Config {
  const names = change.apply.map(family);
  const apply = [...(config.apply ?? []).filter((t) => !names.includes(family(t))), ...change.apply];
  return { ...config, ...(change.fields as Partial<Config>), ...(apply.length ? { apply } : {}) };
}

export function AdvicePanel(props: { id: string; config: Config; onOpen: (c: Config) => void }) {
  const [goal, setGoal] = useState(""), [advice, setAdvice] = useState<Advice | null>(null), [said, setSaid] = useState("");
  const key = JSON.stringify(props.config);
  useEffect(() => { setAdvice(null); setSaid(""); }, [key]);
  const ask = () => {
    setSaid("Trying changes…");
    setAdvice(null);
    post<Advice>("/advise", { ...props.config, ...(goal.trim() ? { goal: goal.trim() } : {}) }).then((a) => { setAdvice(a); setSaid(`${a.tried} changes and combinations were predicted.`); }, (e: Error) => setSaid(e.message));
  };
  const shown = advice ? [...(advice.combination ? [advice.combination] : []), ...advice.recommendations] : [];
  return (
    <details>
      <summary>What to change (advice)</summary>
      <form class="row" onSubmit={(e) => { e.preventDefault(); ask(); }}>
        <label for={props.id}>Goals</label>
        <input id={props.id} style={{ flex: 1 }} value={goal} placeholder="none: shorter; or ttft<0.5s, tokens_per_s>30, memory<2GB" onInput={(e) => setGoal(e.currentTarget.value)} />
        <button type="submit">Advise</button>
      </form>
      <p role="status" class="warn">{said}</p>
      {advice?.goals.map((g) => <p key={g.text}><b>{g.text}</b>: {g.verdict}, {g.sentence}</p>)}
      {advice?.notes.map((n) => <p key={n} class="warn">{n}</p>)}
      {advice && shown.length === 0 && <p>No change that was tried helps.</p>}
      <ol class="advice">{shown.map((c) => (
        <li key={c.title} data-advice={c.title}>
          <b>{c === advice?.combination ? `Together: ${c.title}` : c.title}</b>
          <p>{c.gain.figure} {si(c.gain.before, UNITS[c.gain.figure] ?? "")} → {si(c.gain.after, UNITS[c.gain.figure] ?? "")}: {times(c.gain.factor)} better{c.gain.factor_interval && `, 80 %: ${times(c.gain.factor_interval[0])} to ${times(c.gain.factor_interval[1])}`} (estimate; {c.gain.basis})</p>
          <p class="warn">{c.reason}. Risk for quality: {c.quality.risk}{c.quality.text && ` (${c.quality.text})`}. Effort: {c.effort}.</p>
          {[...c.side_effects, ...c.notes].map((s) => <p key={s} class="warn">{s}</p>)}
          {c.how.map((h) => <p key={h}><code>{h}</code></p>)}
          {c.priced_by === "predict" && <button type="button" onClick={() => props.onOpen(changed(props.config, c))} aria-label={`Open as a configuration: ${c.title}`}>Open as a configuration</button>}
        </li>))}</ol>
    </details>
  );
}
