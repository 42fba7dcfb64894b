"""Conservation and sharing: what must hold at every instant, whatever runs."""

from __future__ import annotations

import math
import sys
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchard.sim import Closed, MemoryUser, Poisson, Simulator, Times
from orchard.sim.kernel import compiled, fill_shares
from orchard.sim.program import PS

sys.path.insert(0, str(Path(__file__).parent))
from toys import machine, program, run, stream

DEMANDS = st.lists(
    st.tuples(st.floats(0.0, 100.0), st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.9, 1.0])), min_size=1, max_size=5
)


def shares(demands: list[tuple[float, float]], dram: float, port: float) -> list[float]:
    """`demands`: (bytes through the port, part of them from DRAM)."""
    share = [0.0] * len(demands)
    wanted = [p * part for p, part in demands]
    fill_shares(len(demands), [True] * len(demands), wanted, [p for p, _ in demands], dram, port, share)
    return share


@given(demands=DEMANDS, dram=st.floats(1.0, 200.0), extra=st.floats(1.0, 3.0))
def test_shares_fit_and_are_max_min_fair(demands: list[tuple[float, float]], dram: float, extra: float) -> None:
    port = dram * extra
    share = shares(demands, dram, port)
    got = [s * p for s, (p, _) in zip(share, demands)]
    used_port, used_dram = sum(got), sum(g * part for g, (_, part) in zip(got, demands))
    assert all(0.0 <= s <= 1.0 for s in share)
    assert used_port <= port * (1 + 1e-9)
    assert used_dram <= dram * (1 + 1e-9)
    full_port, full_dram = used_port >= port * (1 - 1e-9), used_dram >= dram * (1 - 1e-9)
    for i, (wanted, part) in enumerate(demands):
        if wanted > 0.0 and share[i] < 1.0:
            # who is held back uses a full resource on which nobody has more
            users_of_port = max(g for g, (w, _) in zip(got, demands) if w > 0)
            users_of_dram = max((g for g, (w, q) in zip(got, demands) if w > 0 and q > 0), default=0.0)
            by_port = full_port and got[i] >= users_of_port * (1 - 1e-9)
            by_dram = full_dram and part > 0.0 and got[i] >= users_of_dram * (1 - 1e-9)
            assert by_port or by_dram


def test_shares_by_hand() -> None:
    """30 and two who want more of 100: the small one is served, the others split the rest."""
    assert shares([(30.0, 1.0), (80.0, 1.0), (50.0, 1.0)], 100.0, 1e9) == pytest.approx([1.0, 35 / 80, 35 / 50])
    # the port has room for 60; one needs no DRAM, so DRAM (20) holds the other back first
    assert shares([(100.0, 0.0), (100.0, 1.0)], 20.0, 60.0) == pytest.approx([0.4, 0.2])


def test_shares_do_not_depend_on_the_order() -> None:
    demands = [(10.0, 1.0), (40.0, 0.5), (70.0, 1.0), (90.0, 0.1)]
    expected = dict(zip(demands, shares(demands, 60.0, 120.0)))
    for order in permutations(demands):
        assert dict(zip(order, shares(list(order), 60.0, 120.0))) == pytest.approx(expected)


OPS = st.lists(st.tuples(st.floats(1e-6, 1e-3), st.floats(0.0, 80e9)), min_size=1, max_size=6)
"""(seconds, bytes per second)."""


@settings(max_examples=60, deadline=None)
@given(
    programs=st.lists(OPS, min_size=1, max_size=3), capacity=st.floats(20e9, 150e9),
    starts=st.lists(st.floats(0, 2e-3), min_size=3, max_size=3),
)  # fmt: skip
def test_conservation(programs: list[list[tuple[float, float]]], capacity: float, starts: list[float]) -> None:
    """Bytes served = bytes asked; shares within capacity at every instant; nobody above its own rate; causes sum to latency."""
    made = [program(f"p{i}", [(t, t * min(rate, capacity)) for t, rate in ops]) for i, ops in enumerate(programs)]
    names = [f"e{i}" for i in range(len(made))]
    log: list[tuple[float, ...]] = []
    streams = [stream(n, n, p, Times((round(s * PS),)), repeats=2) for n, p, s in zip(names, made, starts)]
    found = run(machine(*names, dram_bytes_per_s=capacity, port_bytes_per_s=2 * capacity), streams, log=log)
    asked = sum(2 * float(p.dram_bytes.sum()) for p in made)
    assert found.dram_bytes == pytest.approx(asked, rel=1e-9)
    served = 0.0
    at_time: dict[float, float] = {}
    for start, end, _unit, _op, _at, pace, alone, rate, _port in log:
        assert 0.0 <= pace <= 1.0
        if not alone:  # an interval of one op at one pace
            served += pace * rate * (end - start)
            at_time[start] = at_time.get(start, 0.0) + pace * rate
    assert all(rate * PS <= capacity * (1 + 1e-9) for rate in at_time.values())
    if all(not entry[6] for entry in log):
        assert served == pytest.approx(asked, rel=1e-5, abs=1.0)  # ends are whole picoseconds
    for stats in found.streams:
        assert sum(stats.causes_s.values()) == pytest.approx(stats.latency.total, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(programs=st.lists(OPS, min_size=2, max_size=4), capacity=st.floats(20e9, 100e9))
def test_a_stream_more_never_speeds_up_a_single_request_beside_it(
    programs: list[list[tuple[float, float]]], capacity: float
) -> None:
    """One op each, so that nothing but the share can change: docs/simulation.md says why more ops may break it."""
    made = [program(f"p{i}", [(ops[0][0], ops[0][0] * min(ops[0][1], capacity))]) for i, ops in enumerate(programs)]
    names = [f"e{i}" for i in range(len(made))]
    toy = machine(*names, dram_bytes_per_s=capacity, port_bytes_per_s=2 * capacity)
    streams = [stream(n, n, p, Times((0,)), repeats=3) for n, p in zip(names, made)]
    fewer = run(toy, streams[:-1])
    more = run(toy, streams)
    for before, after in zip(fewer.streams, more.streams):
        assert after.latency.total >= before.latency.total - 2 / PS  # ends round up to a picosecond


def test_alone_means_exactly_the_time_of_the_program() -> None:
    made = program("p", [(1.5e-3, 6e6), (2e-3, 1e6)])
    found = run(machine("e", dram_bytes_per_s=10e9, port_bytes_per_s=20e9), [stream("s", "e", made, Times((0,)))])
    assert found.streams[0].latency.total == 3.5e-3


def test_two_equal_streams_each_get_half() -> None:
    """Each asks for 80 of 100 GB/s, so both take 80 / 50 as long."""
    made = program("p", [(1e-3, 80e6)])
    toy = machine("a", "b", dram_bytes_per_s=100e9, port_bytes_per_s=200e9)
    found = run(toy, [stream(n, n, made, Times((0,))) for n in "ab"])
    assert [s.latency.total for s in found.streams] == pytest.approx([1.6e-3, 1.6e-3])
    assert found.streams[0].causes_s["contention"] == pytest.approx(0.6e-3)


def test_memory_users_come_first() -> None:
    made = program("p", [(1e-3, 80e6)])
    toy = machine("a", dram_bytes_per_s=100e9, port_bytes_per_s=200e9)
    found = run(toy, [stream("s", "a", made, Times((0,)))], users=[MemoryUser(name="camera", bytes_per_s=60e9)])
    assert found.streams[0].latency.total == pytest.approx(2e-3)  # 80 MB at 40 GB/s


@pytest.mark.skipif(compiled() is None, reason="numba is not installed")
def test_compiled_and_plain_give_the_same_bits() -> None:
    made = [program(f"p{i}", [((i + 1) * 1e-5 * (j % 7 + 1), 1e6 * (j % 5)) for j in range(40)]) for i in range(3)]
    toy = machine("a", "b", "c", dram_bytes_per_s=60e9, port_bytes_per_s=90e9)
    streams = [stream(n, n, p, Poisson(100.0) if n == "c" else Closed()) for n, p in zip("abc", made)]
    plain, fast = (Simulator(toy, streams, seconds=0.5, seed=3, fast=f).run() for f in (False, True))
    assert [(s.latency.total, s.causes_s) for s in plain.streams] == [
        (s.latency.total, s.causes_s) for s in fast.streams
    ]
    assert (plain.dram_bytes, plain.energy_j, plain.ops) == (fast.dram_bytes, fast.energy_j, fast.ops)
    assert not math.isclose(plain.streams[0].causes_s["contention"], 0.0)
