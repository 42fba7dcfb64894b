// The HTTP API as the page sees it. No number is calculated here: everything shown comes from the server.
export interface Config {
  model: string; chip: string; runtime?: string; engine?: string; weights?: string; kv?: string; activations?: string;
  batch?: number; prompt?: number; generate?: number; depth?: number; fidelity?: string; set?: Record<string, string>;
  steps?: number; threads?: number; apply?: string[];
}
export interface Phase {
  tokens: number; latency_s: number; interval_s: [number, number]; bound_s: number; tokens_per_s: number; energy_j: number;
  energy_interval_j: [number, number]; ops: number; dram_bytes: number; bound_by: Record<string, number>;
  breakdown?: Kernel[];
}
export interface Kernel {
  group: string; name: string; kind: string; format: string; count: number; seconds: number; compute_s: number;
  memory_s: number; dispatch_s: number; ops: number; bytes: number;
}
export interface Why { kind: string; text: string; source: string }
export interface Slice { name: string; kind: string; count: number; start_s: number; seconds: number; bound_by: string }
export interface Roofline {
  peak_ops_per_s: number; bytes_per_s: number;
  points: { name: string; intensity: number; ops_per_s: number; seconds: number; bound_by: string }[];
}
export interface View {
  prediction: {
    model: { name: string; params: number; weight_bytes: number }; chip: { id: string; name: string }; runtime: string;
    engine: string; fidelity: string; weights: string; ttft_s: number | null; phases: Record<string, Phase>;
    memory: { weights_bytes: number; kv_cache_bytes: number; activation_peak_bytes: number; total_bytes: number; limit_bytes: number; fits: boolean };
    warnings: string[];
  };
  command: string; rooflines: Record<string, Roofline>; timelines: Record<string, Slice[]>;
  passes: Record<string, { ops: number; activation_bytes: number[] }>; context: { tokens: number; cache_bytes: number }[];
  why: Record<string, Why>;
}
export interface Segment { engine: string; launches: number; ops: number; first: string; last: string; seconds: number; handover_s: number; why: string }
export interface Placement {
  engines_used: string[]; total_s: number; kind: string; proof: { proven: boolean; gap: number };
  phases: Record<string, { latency_s: number; segments: Segment[] }>;
}
export interface Design {
  index: number; knobs: Record<string, number | string>; metrics: Record<string, number | null>; open: Record<string, Config>;
}
export interface RunStatus {
  run: string; name: string; chip: string; state: string; message: string; designs: number; evaluated: number; feasible: number;
  front_size: number; objectives: { metric: string; larger: boolean }[]; front: Design[]; cloud: (number | null)[][];
}
export interface Figure { value: number | string | null; unit: string; si: number | null; about: string; kind: string | null; source: string | null; note: string | null }

const token = (() => {
  const found = /(?:^#|&)token=([^&]+)/.exec(location.hash)?.[1];
  if (found) {
    sessionStorage.setItem("orchard-token", found);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem("orchard-token");
})();

async function call<T>(path: string, init: RequestInit = {}): Promise<T> {
  const headers: Record<string, string> = { ...(init.headers as Record<string, string>) };
  if (token) headers.authorization = `Bearer ${token}`;
  let answer: Response;
  try {
    answer = await fetch(`/api/v1${path}`, { ...init, headers });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Error("The server does not answer; is orchard lab still running?");
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? `status ${answer.status}`);
  return body as T;
}
export const get = <T,>(path: string) => call<T>(path);
export const post = <T,>(path: string, body: unknown, signal?: AbortSignal) =>
  call<T>(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
export const upload = <T,>(file: File) => call<T>(`/files/${encodeURIComponent(file.name)}`, { method: "PUT", body: file });

const PREFIXES: [number, string][] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
export function si(value: number, unit: string): string {
  if (value === 0) return `0 ${unit}`;
  const [scale, prefix] = PREFIXES.find(([s]) => Math.abs(value) >= s) ?? PREFIXES[PREFIXES.length - 1];
  const shown = value / scale;
  return `${shown.toPrecision(3).includes("e") ? shown.toFixed(0) : Number(shown.toPrecision(3))} ${prefix}${unit}`;
}
