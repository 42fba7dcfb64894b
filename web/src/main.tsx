import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Config, get } from "./api";
import { Explore } from "./explore";
import { Slot, Tip } from "./slot";
import "./style.css";

export interface Catalogue {
  models: { id: string; name: string }[]; chips: { id: string; name: string }[]; weights: string[]; kv: string[]; runtimes: string[]; suffixes: string[]; folder: string[];
}
const FIRST: Config = { model: "llama-3.1-8b", chip: "m4max", weights: "q4_k_m" };
const MOST = 4;

// A link holds every configuration: #c=[{"model": ...}].
function fromLink(): Config[] {
  try {
    const found = JSON.parse(decodeURIComponent(/#c=(.+)$/.exec(location.hash)?.[1] ?? ""));
    if (Array.isArray(found) && found.length && found.every((c) => typeof c?.model === "string" && typeof c?.chip === "string")) return found.slice(0, MOST);
  } catch { /* no link, or a damaged one: start afresh */ }
  return [FIRST];
}

function App() {
  const [slots, setSlots] = useState<Config[]>(fromLink), [tab, setTab] = useState("configure");
  const [catalogue, setCatalogue] = useState<Catalogue | null>(null), [error, setError] = useState(""), [tip, setTip] = useState<Tip | null>(null), [said, setSaid] = useState("");
  const load = async () => {
    try {
      const [models, chips, about, files] = await Promise.all([
        get<{ models: { id: string; name: string; unpublished: string | null }[] }>("/models"), get<{ chips: { id: string; name: string }[] }>("/chips"),
        get<{ weights: string[]; kv: string[]; runtimes: string[] }>("/about"), get<{ open: { id: string; name: string }[]; folder: string[]; suffixes: string[] }>("/files"),
      ]);
      const known = models.models.filter((m) => !m.unpublished).map((m) => ({ id: m.name, name: m.id }));
      const folder = files.folder.map((name) => ({ id: name, name: "a file of --models" }));
      setCatalogue({ ...about, models: [...files.open, ...folder, ...known], chips: chips.chips, suffixes: files.suffixes, folder: files.folder });
    } catch (e) { setError((e as Error).message); }
  };
  useEffect(() => void load(), []);
  useEffect(() => history.replaceState(null, "", `#c=${encodeURIComponent(JSON.stringify(slots))}`), [slots]);
  useEffect(() => {
    const changed = () => setSlots(fromLink());
    addEventListener("hashchange", changed);
    const escape = (e: KeyboardEvent) => e.key === "Escape" && setTip(null);
    addEventListener("keydown", escape);
    return () => { removeEventListener("hashchange", changed); removeEventListener("keydown", escape); };
  }, []);
  const open = (c: Config) => setSlots((all) => (all.length < MOST ? [...all, c] : [...all.slice(0, MOST - 1), c]));
  const share = () => { void navigator.clipboard?.writeText(location.href); setSaid("The address of this page holds all configurations; it is copied."); };
  return (
    <>
      <header>
        <h1>Orchard SoC Lab</h1>
        <nav aria-label="Views">{[["configure", "Configure and compare"], ["explore", "Explore"]].map(([name, label]) => <button key={name} type="button" aria-current={tab === name ? "page" : undefined} onClick={() => setTab(name)}>{label}</button>)}</nav>
        {tab === "configure" && <div class="row"><button type="button" disabled={slots.length >= MOST} onClick={() => setSlots([...slots, slots[slots.length - 1]])}>Add a configuration</button><button type="button" onClick={share}>Share as link</button></div>}
        <span role="status" class="warn">{said}</span>
      </header>
      <main>
        {error && <p class="error" role="alert">{error}</p>}
        {catalogue && <datalist id="models">{catalogue.models.map((m) => <option key={m.id} value={m.id}>{m.name}</option>)}</datalist>}
        {catalogue && tab === "configure" && <div class="slots">{slots.map((config, i) => <Slot key={i} index={i} config={config} catalogue={catalogue} onTip={setTip} onFiles={() => void load()} onOpen={open}
          onConfig={(c) => setSlots((all) => all.map((old, j) => (j === i ? c : old)))} onRemove={slots.length > 1 ? () => setSlots(slots.filter((_, j) => j !== i)) : undefined} />)}</div>}
        {catalogue && tab === "explore" && <Explore start={slots[0]} onOpen={(c) => { open(c); setTab("configure"); }} />}
      </main>
      <div id="tip" role={tip ? "tooltip" : undefined} class={tip ? "tip" : "hidden"} style={tip ? { left: `${Math.max(8, Math.min(tip.at.left, innerWidth - 340))}px`, top: `${tip.at.bottom + 150 < innerHeight ? tip.at.bottom + 6 : Math.max(8, tip.at.top - 150)}px` } : {}}>
        {tip && <><b>{tip.label}: {tip.value}</b>{tip.why && <><p>{tip.why.text}</p><p>Kind: {tip.why.kind}. Source: {tip.why.source}.</p></>}</>}
      </div>
    </>
  );
}
render(<App />, document.getElementById("app")!);
