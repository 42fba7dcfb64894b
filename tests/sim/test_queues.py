"""Queueing against closed forms, priorities, cascades, overload, and the same run twice."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from random import Random

import pytest

from orchard.sim import Closed, Periodic, Poisson, SimError, Simulator, Successor, Times, Triggered
from orchard.sim.program import PS, Call, Stage, Workload
from orchard.sim.simulator import Stream

sys.path.insert(0, str(Path(__file__).parent))
from toys import machine, program, run, stream

SERVICE = 1e-3


def waits(load: float, works: list[Workload], seconds: float, seed: int) -> tuple[float, int]:
    """(mean wait, requests) of Poisson arrivals at `load` on one engine."""
    one = Stream(name="s", workloads=tuple(works), arrivals=Poisson(load / SERVICE), limit=10**6)
    found = run(machine("e"), [one], seconds, seed=seed).streams[0]
    return found.causes_s["queue"] / found.completed, found.completed


def within(values: list[float], expected: float) -> bool:
    """Within three standard errors of the mean over independent runs (and never by a spread of a tenth or more)."""
    mean = sum(values) / len(values)
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    return abs(mean - expected) < 3 * error and error < 0.1 * expected


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_fixed_service_waits_as_pollaczek_khinchine_says(load: float) -> None:
    """M/D/1: mean wait = load x service / (2 (1 - load))."""
    work = Workload((Stage("e", (Call(program("p", [(SERVICE, 0.0)])),)),))
    expected = load * SERVICE / (2 * (1 - load))
    assert within([waits(load, [work], 7.0, seed)[0] for seed in range(5)], expected)


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_exponential_service_waits_as_erlang_says(load: float) -> None:
    """M/M/1: mean wait = load x service / (1 - load). Service times are drawn here: 2,000 programs in random order."""
    draw = Random(5)
    times = [-math.log1p(-(i + 0.5) / 2000) * SERVICE for i in range(2000)]  # exact quantiles of the distribution
    draw.shuffle(times)
    works = [Workload((Stage("e", (Call(program("p", [(t, 0.0)])),)),)) for t in times]
    expected = load * SERVICE / (1 - load)
    assert within([waits(load, works, 7.0, seed)[0] for seed in range(5)], expected)


def test_the_important_stream_takes_over_at_the_end_of_an_op() -> None:
    """Ten ops of 1 ms from 0; at 2.5 ms somebody important comes, starts at 3 ms and takes 2 ms; the rest ends at 12 ms."""
    long = stream("long", "e", program("p", [(1e-3, 0.0)] * 10), Times((0,)))
    urgent = stream("urgent", "e", program("q", [(2e-3, 0.0)]), Times((round(2.5e-3 * PS),)), priority=1)
    slow, fast = run(machine("e"), [long, urgent]).streams
    assert fast.latency.total == pytest.approx(2.5e-3)
    assert fast.causes_s["queue"] == pytest.approx(0.5e-3)
    assert slow.latency.total == pytest.approx(12e-3)
    assert slow.causes_s["preempted"] == pytest.approx(2e-3)


def test_equal_streams_take_turns_call_by_call() -> None:
    """Two requests of three calls each, 1 ms a call: a b a b a b."""
    made = program("p", [(1e-3, 0.0)])
    first, second = run(machine("e"), [stream(n, "e", made, Times((0,)), repeats=3) for n in "ab"]).streams
    assert (first.latency.total, second.latency.total) == pytest.approx((5e-3, 6e-3))


def test_two_units_serve_two_requests_at_once() -> None:
    from orchard.sim import EngineSpec, Machine

    made = program("p", [(1e-3, 0.0)])
    twin = Machine(name="toy", engines=(EngineSpec(name="e", units=2),))
    found = run(twin, [stream("s", "e", made, Times((0, 0, 0)))])
    assert found.streams[0].latency.total == pytest.approx(1e-3 + 1e-3 + 2e-3)


def test_a_cascade_starts_when_its_cause_ends_and_counts_its_deadline_from_the_first() -> None:
    made = program("p", [(1e-3, 0.0)])
    detector = Stream(
        name="detector", workloads=(Workload((Stage("e", (Call(made),)),)),), arrivals=Periodic(round(10e-3 * PS)),
        then=(Successor(1, count=2),),
    )  # fmt: skip
    late = round(2.5e-3 * PS)
    classifier = Stream(name="classifier", workloads=detector.workloads, arrivals=Triggered(), deadline_ps=late)
    found = run(machine("e"), [detector, classifier], 0.0999).streams
    assert found[0].completed == 10
    assert found[1].completed == 20
    assert found[1].late == 10  # of each pair the second ends 3 ms after the detector's arrival


def test_some_cascades_happen_with_their_probability() -> None:
    made = program("p", [(1e-6, 0.0)])
    base = stream("a", "e", made, Periodic(round(1e-4 * PS)), then=(Successor(1, probability=0.3),))
    found = run(machine("e"), [base, stream("b", "e", made, Triggered())], 1.0, seed=1).streams
    share = found[1].arrived / found[0].completed
    assert abs(share - 0.3) < 3 * math.sqrt(0.3 * 0.7 / found[0].completed)


def test_overload_drops_and_ends() -> None:
    """Twice what the engine can do: half is dropped, and the run ends at its time."""
    found = run(machine("e"), [stream("s", "e", program("p", [(2e-3, 0.0)]), Periodic(round(1e-3 * PS)), limit=8)], 1.0)
    only = found.streams[0]
    assert found.seconds == 1.0
    assert only.completed == 500
    assert only.dropped == pytest.approx(500, abs=10)
    assert only.arrived == only.completed + only.dropped + found.pending


def test_statistics_stay_small_while_time_grows() -> None:
    """Ten times the time: the same number of kept values, series rows and events."""
    from orchard.sim.stats import EXACT, Quantiles

    made = program("p", [(1e-5, 0.0)])
    sizes = []
    for seconds in (5.0, 15.0):
        simulator = Simulator(machine("e"), [stream("s", "e", made, Poisson(1000.0))], seconds=seconds)
        found = simulator.run()
        quantiles = found.streams[0].latency
        sizes.append((len(found.series.rows), len(simulator._events), len(quantiles._values) <= EXACT))
        assert len(quantiles._buckets) < 2000
    assert sizes[0] == sizes[1]
    exact, folded = Quantiles(), Quantiles()
    for i in range(EXACT):
        exact.add(1e-3 + i * 1e-6)
    for i in range(2 * EXACT):
        folded.add(1e-3 + i * 1e-6 / 2)
    assert folded.quantile(0.95) == pytest.approx(exact.quantile(0.95), rel=1.5e-3)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    made = program("p", [(1e-3, 1e6)])
    toy = machine("e", "f", dram_bytes_per_s=1.2e9, port_bytes_per_s=2e9)
    streams = [stream("a", "e", made, Poisson(300.0)), stream("b", "f", made, Closed(think_ps=PS // 1000))]
    one, two, other = (run(toy, streams, 1.0, seed=seed).streams[0].latency.total for seed in (7, 7, 8))
    assert one == two != other


def test_a_stream_keeps_its_arrivals_when_others_come_or_go() -> None:
    made = program("p", [(1e-6, 0.0)])
    alone = run(machine("e"), [stream("a", "e", made, Poisson(300.0))], 1.0).streams[0].arrived
    beside = run(machine("e"), [stream("b", "e", made, Poisson(90.0)), stream("a", "e", made, Poisson(300.0))], 1.0)
    assert beside.streams[1].arrived == alone


def test_unknown_engines_and_greedy_memory_users_are_refused() -> None:
    from orchard.sim import MemoryUser

    with pytest.raises(SimError, match=r"no engine 'npu', expected one of e"):
        run(machine("e"), [stream("s", "npu", program("p", [(1e-3, 0.0)]), Times((0,)))])
    with pytest.raises(SimError, match=r"memory users take 12 GB/s together, the DRAM gives 10 GB/s"):
        run(
            machine("e", dram_bytes_per_s=10e9),
            [],
            1.0,
            users=[MemoryUser(name="u", bytes_per_s=6e9), MemoryUser(name="v", bytes_per_s=6e9)],
        )
