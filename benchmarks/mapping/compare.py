"""Orchard and its peers on the shipped jobs, in one run on one machine: wall and CPU time of the search without import, and EDP.

    python benchmarks/mapping/compare.py --accelforge /path/to/python3.12 --jobs J1,J1T,J2 --timeout 300

A peer without a Python is left out and said so. Every run is a process of its own with a time limit. J3 is run by Orchard alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from record import table, write  # noqa: E402

GEMM = "gemm:m=4096,k=4096,n=4096"
SETTINGS = {
    "J1": [
        ("registers in the order I,W,O", ["E16", "--order", "IWO"], [GEMM, "E16", "RF: tensors=A,B,C", "perfect"]),
        ("registers in the order O,I,W", ["E16", "--order", "OIW"], [GEMM, "E16", "RF: tensors=C,A,B", "perfect"]),
        ("registers in any order", ["E16", "--free"], [GEMM, "E16", "", "perfect"]),
        ("imperfect temporal factors", ["E16", "--imperfect"], [GEMM, "E16", "", "imperfect"]),
    ],
    "J1T": [("", ["T128", "--order", "W"], [GEMM, "T128", "", "perfect"])],
}
"""Per job: the setting, AccelForge's arguments, ours (op, machine, constraint, factors)."""

OURS = """
import json, os, sys, time
from orchard.hw.arch import load_arch
from orchard.mapping.constraints import constraints_from, parse_constraints
from orchard.mapping.ops import parse_op
from orchard.studies.map import map_op
op, machine, rule, factors = sys.argv[1:5]
problem, arch = parse_op(op), load_arch(machine)
rules = constraints_from(parse_constraints([rule] if rule else []), problem, arch)
started, cpu = time.perf_counter(), time.process_time()
best = map_op(problem, arch, "edp", factors=factors, constraints=rules)
print(json.dumps({"search_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu, "optimal": best.optimal,
                  "energy_pj": best.estimate.energy_pj, "latency_cycles": best.estimate.latency_cycles,
                  "edp": best.estimate.edp}))
"""

FUSED = """
import json, time
from orchard.hw.arch import load_arch
from orchard.mapping.chain_text import parse_chain
from orchard.mapping.jobs import job
from orchard.studies.fuse import map_chain
chain, arch = parse_chain(job("J3").ops[0].op), load_arch(job("J3").arch)
started, cpu = time.perf_counter(), time.process_time()
best = map_chain(chain, arch)
print(json.dumps({"search_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu, "optimal": best.optimal,
                  "energy_pj": best.estimate.energy_pj, "latency_cycles": best.estimate.latency_cycles,
                  "edp": best.estimate.edp}))
"""


def run(command: list[str], limit: float) -> dict[str, float] | str:
    """The last line of stdout as JSON, or why there is none."""
    source = str(HERE.parents[1] / "src")
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env={"PYTHONPATH": source, "PATH": "/usr/bin:/bin"}
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer in {limit:.0f} s"
    if ended.returncode != 0:
        return f"failed: {(ended.stderr.strip().splitlines() or ['?'])[-1][:80]}"
    found: dict[str, float] = json.loads(ended.stdout.strip().splitlines()[-1])
    return found


def row(job: str, tool: str, setting: str, found: dict[str, float] | str) -> tuple[str, ...]:
    if isinstance(found, str):
        return (job, tool, setting, found, "", "", "", "", "")
    proof = {True: "proven", False: "open"}.get(found.get("optimal"), "")  # type: ignore[arg-type]
    return (job, tool, setting, f"{found['search_s']:.2f}", f"{found['cpu_s']:.2f}", f"{found['energy_pj']:.4g}",
            f"{found['latency_cycles']:.4g}", f"{found['edp']:.4g}", proof)  # fmt: skip


def layers(limit: float) -> list[tuple[str, ...]]:
    """J2, Orchard alone: peers have no answer for its 3x3 and 7x7 layers in minutes, or are stopped by the time limit."""
    from orchard.mapping.jobs import job

    rows = []
    for layer in job("J2").ops:
        found = run([sys.executable, "-c", OURS, layer.op, "E16", "", "perfect"], limit)
        rows.append(row("J2", "Orchard", layer.name, found))
        print(*rows[-1], sep=" | ", flush=True)
    numbers = [(float(r[3]), float(r[4])) for r in rows if r[8]]
    proven = sum(r[8] == "proven" for r in rows)
    total = (f"{sum(n[0] for n in numbers):.2f}", f"{sum(n[1] for n in numbers):.2f}")
    return [*rows, ("J2", "Orchard", f"all {len(rows)} layers", *total, "", "", "", f"{proven} proven")]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--accelforge", help="a Python that has accelforge")
    options.add_argument("--jobs", default="J1,J1T,J2")
    options.add_argument("--timeout", type=float, default=300, help="seconds per run")
    given = options.parse_args()
    sys.path.insert(0, str(HERE.parents[1] / "src"))
    rows = []
    for job in given.jobs.split(","):
        for setting, theirs, ours in SETTINGS.get(job, []):
            rows.append(row(job, "Orchard", setting, run([sys.executable, "-c", OURS, *ours], given.timeout)))
            print(*rows[-1], sep=" | ", flush=True)
            if given.accelforge:
                machine, *flags = theirs
                script = [given.accelforge, str(HERE / "peers" / "run_accelforge.py"), machine, *["4096"] * 3, *flags]
                rows.append(row(job, "AccelForge", setting, run(script, given.timeout)))
                print(*rows[-1], sep=" | ", flush=True)
        if job == "J2":
            rows += layers(given.timeout)
        if job == "J3":
            rows.append(row("J3", "Orchard", "fused", run([sys.executable, "-c", FUSED], given.timeout)))
            print(*rows[-1], sep=" | ", flush=True)
    header = ["job", "tool", "setting", "search s", "CPU s", "energy pJ", "cycles", "EDP", "proof"]
    left_out = [] if given.accelforge else ["AccelForge: left out, no --accelforge.", ""]
    lines = [*left_out, "ZigZag, Stream and Timeloop: not run by this script.", "", *table(header, rows)]
    (HERE / "results" / "compare.csv").write_text("\n".join(",".join(str(x) for x in r) for r in [header, *rows]) + "\n")
    print(write("compare", "Mapping jobs, side by side", lines))


if __name__ == "__main__":
    main()
