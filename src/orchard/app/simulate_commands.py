"""`orchard simulate`: several workloads on one SoC; `orchard scenarios`: those that come with Orchard; `orchard check-trace`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from orchard.app.options import AsJson, ChipOption, FailIf, Set
from orchard.app.output import note, print_json, print_text, show, warn
from orchard.units import OrchardError


def simulate(
    scenario: Annotated[str, typer.Argument(help="A name (`orchard scenarios`) or a YAML file.", metavar="SCENARIO")],
    chip: ChipOption,
    seconds: Annotated[float | None, typer.Option("--seconds", help="Simulated time; the scenario's without.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of random arrivals and cascades.")] = 0,
    chassis: Annotated[
        str | None,
        typer.Option("--chassis", help="phone, fanless-laptop, fan-laptop, desktop or none.", metavar="NAME"),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a trace for Perfetto.", metavar="FILE.json.gz")
    ] = None,
    trace_ops: Annotated[bool, typer.Option("--trace-ops", help="A slice per op in the trace (large).")] = False,
    set: Set = None,
    fail_if: FailIf = None,
    json: AsJson = False,
) -> None:
    """Several workloads on one SoC: latencies, misses, power, heat."""
    from orchard.app.conditions import end_if_any_holds, parse_condition, refuse_unknown_streams, simulation_facts
    from orchard.studies.simulate import ENGINES
    from orchard.studies.simulate import simulate as run_simulation
    from orchard.workloads.scenarios import load_scenario

    conditions = [parse_condition(text) for text in fail_if or ()]
    read = load_scenario(scenario)
    refuse_unknown_streams(conditions, [stream.name for stream in read.streams], ENGINES)
    if seed < 0:
        raise OrchardError(f"--seed {seed}: expected 0 or more")
    if trace is not None and not trace.absolute().parent.is_dir():
        raise OrchardError(f"--trace {str(trace)[:100]!r}: the folder {str(trace.parent)[:100]!r} does not exist")
    if trace_ops and trace is None:
        raise OrchardError("--trace-ops: say where with --trace FILE.json.gz")
    made = run_simulation(
        read, chip, seconds=seconds, seed=seed, chassis=chassis, trace=trace, trace_ops=trace_ops,
        overrides=tuple(set or ()), say=_progress(),
    )  # fmt: skip
    record = made.to_dict()
    if json:
        print_json(record)
    else:
        from orchard.report.simulation import render_simulation

        show(render_simulation(made))
    warn(made.warnings)
    end_if_any_holds(conditions, simulation_facts(record))


def _progress() -> Callable[[float], None]:
    """Says how far a long run is, every five seconds and only on a terminal."""
    state = [time.monotonic()]

    def say(done: float) -> None:
        if time.monotonic() - state[0] > 5.0 and sys.stderr.isatty():
            state[0] = time.monotonic()
            note(f"{done:.0%} simulated")

    return say


def scenarios(json: AsJson = False) -> None:
    """The scenarios that come with Orchard."""
    from orchard.workloads.scenarios import load_scenario, scenario_names

    found = [load_scenario(name) for name in scenario_names()]
    if json:
        print_json({
            "schema": "orchard.scenarios/1",
            "scenarios": [
                {"name": s.name, "about": s.about, "seconds": s.seconds, "streams": [x.name for x in s.streams],
                 "users": [u.name for u in s.users], "sources": dict(s.sources)}
                for s in found
            ],
        })  # fmt: skip
        return
    from orchard.report.simulation import render_scenarios

    show(render_scenarios(found))


def check_trace(
    file: Annotated[Path, typer.Argument(help="A trace in Chrome's JSON format; .gz is read.", metavar="FILE")],
    json: AsJson = False,
) -> None:
    """Check a trace: ordered, balanced, no overlap per engine."""
    from orchard.sim.trace import check_trace as check

    found = check(file)
    if json:
        print_json({
            "schema": "orchard.trace_check/1", "file": str(file), "events": found.events, "slices": found.slices,
            "arrows": found.arrows, "open_arrows": found.open_arrows, "requests": found.spans,
            "counters": found.counters, "threads": list(found.threads.values()),
        })  # fmt: skip
    else:
        print_text(
            f"{found.events:,} events in order: {found.slices:,} slices on {', '.join(found.threads.values())};\n"
            f"{found.spans:,} requests, {found.arrows:,} arrows, {found.counters:,} counter values"
        )


def register(app: typer.Typer) -> None:
    app.command("simulate")(simulate)
    app.command("scenarios")(scenarios)
    app.command("check-trace")(check_trace)
