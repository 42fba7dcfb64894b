"""The recorded run: microbenchmarks, whole models, calibration, error tables. `python benchmarks/measure/run.py`.

About eight minutes on a quiet machine with two cores. It can be killed and started again: what is measured stays. The suite is
measured twice, so that the second fit shows how far fitted rates move. Results: `results/<date>/run` (raw samples, machine),
`machine.yaml`, `validation.json`, `tables.txt` with the date, the commit and each target.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchard.measure.models import MODELS
from orchard.measure.run import Job, measure_programs, measure_suite
from orchard.report.layout import make_console
from orchard.report.measurement import measured_record, render_machine, render_measured
from orchard.studies.machine_file import Calibrated, calibrate_run, save_machine
from orchard.studies.measured import validate_measured

HERE = Path(__file__).parent
RATES = ("macs_per_s.f32", "macs_per_s.bf16", "read_s_per_byte.2", "read_s_per_byte.6", "write_s_per_byte.6")
REPEAT_TARGET, SUITE_TARGET_S = 0.05, 180.0


def say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def timed(what: str, call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = call()
    seconds = time.perf_counter() - started
    say(f"{what}: {seconds:.0f} s")
    return found, seconds


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    folder = HERE / "results" / (sys.argv[1] if len(sys.argv) > 1 else f"{datetime.now(UTC):%Y-%m-%d}")
    folder.mkdir(parents=True, exist_ok=True)
    first = Job(output=folder / "run")
    run, suite_s = timed("microbenchmarks", lambda: measure_suite(first, say))
    timed("models", lambda: measure_programs(first, tuple(MODELS.values()), say))
    fitted, fit_s = timed("calibration", lambda: calibrate_run(run))
    path = save_machine(fitted, "recorded", folder / "machine.yaml")
    report = validate_measured(str(folder / "run"), str(path))
    (folder / "validation.json").write_text(json.dumps(measured_record(report), indent=1) + "\n")
    again, _ = timed("microbenchmarks again", lambda: measure_suite(Job(output=folder / "again"), say))
    second, _ = timed("calibration again", lambda: calibrate_run(again))
    with (folder / "tables.txt").open("w") as file:
        console = make_console(file, width=100)
        console.print(f"{run.head['created']}  commit {commit()}  load {run.head['state_before']['load']}")
        console.print(
            f"microbenchmarks {suite_s:.0f} s and calibration {fit_s:.0f} s, wanted: together {SUITE_TARGET_S:.0f} s"
        )
        console.print(render_machine(fitted, "machine.yaml", "machine.yaml"))
        console.print(repeat_lines(fitted, second))
        console.print(render_measured(report, ops=True))
    print((folder / "tables.txt").read_text().split("\n\n")[0])
    make_console(sys.stdout, width=100).print(render_measured(report))


def repeat_lines(a: Calibrated, b: Calibrated) -> str:
    """How far the second fit's rates are from the first's; at most 5 % is wanted on a quiet machine."""
    lines = [f"fitted again from a second run (wanted: within {100 * REPEAT_TARGET:.0f} %)"]
    lines += [f"  {name:<20} {100 * (b.fit.values[name] / a.fit.values[name] - 1):+.1f} %" for name in RATES]
    return "\n".join(["", *lines, ""])


if __name__ == "__main__":
    main()
