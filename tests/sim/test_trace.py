"""Traces: what is written passes the checker, and the checker sees every broken rule."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from orchard.sim import Periodic, Poisson, Successor, TraceError, TraceWriter, Triggered, check_trace
from orchard.sim.program import PS

sys.path.insert(0, str(Path(__file__).parent))
from toys import machine, program, run, stream


def busy_trace(path: Path, *, ops: bool) -> None:
    made = program("p", [(1e-4, 4e6), (2e-4, 9e6), (1e-4, 0.0)])
    streams = [
        stream("frames", "a", made, Periodic(PS // 500), then=(Successor(1),), priority=1),
        stream("objects", "b", made, Triggered()),
        stream("noise", "a", made, Poisson(300.0)),
    ]
    with TraceWriter(path, ops=ops) as writer:
        run(machine("a", "b", dram_bytes_per_s=50e9, port_bytes_per_s=80e9), streams, 0.25, trace=writer)


@pytest.mark.parametrize("ops", [False, True])
@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_a_written_trace_passes(tmp_path: Path, name: str, ops: bool) -> None:
    path = tmp_path / name
    busy_trace(path, ops=ops)
    found = check_trace(path)
    assert list(found.threads.values()) == ["a", "b"]
    assert found.slices > (900 if ops else 300)
    assert found.arrows >= 124
    assert found.open_arrows <= 1
    assert found.counters > 0
    raw = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    events = json.loads(raw)["traceEvents"]  # one JSON object, as Perfetto and chrome://tracing read it
    assert len(events) == found.events


def test_tracing_changes_nothing_and_is_the_same_twice(tmp_path: Path) -> None:
    for name in ("one.json.gz", "two.json.gz"):
        busy_trace(tmp_path / name, ops=True)
    assert (tmp_path / "one.json.gz").read_bytes() == (tmp_path / "two.json.gz").read_bytes()
    made = program("p", [(1e-4, 4e6), (2e-4, 9e6)])
    toy = machine("a", "b", dram_bytes_per_s=50e9, port_bytes_per_s=80e9)
    streams = [stream("x", "a", made, Poisson(2000.0)), stream("y", "b", made, Poisson(2000.0))]
    with TraceWriter(tmp_path / "t.json", ops=True) as writer:
        traced = run(toy, streams, 0.2, trace=writer)
    plain = run(toy, streams, 0.2)
    assert [s.latency.total for s in traced.streams] == [s.latency.total for s in plain.streams]


def event(phase: str, at: float, tid: int = 1, **more: Any) -> dict[str, Any]:
    return {"ph": phase, "pid": 1, "tid": tid, "ts": at, "name": "x", "cat": "c", "id": 1, **more}


@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([event("B", 1.0)], "slices without an end"),
        ([event("E", 1.0)], "an end at 1.0 us without a beginning"),
        ([event("B", 2.0), event("E", 1.0)], "ends at 1.0 us, before 2.0 us"),
        ([event("B", 1.0), event("E", 3.0), event("B", 2.0), event("E", 4.0)], "overlap"),
        ([event("s", 1.0)], "outside a slice"),
        ([event("B", 1.0), event("f", 1.0), event("E", 2.0)], "arrow 1 ends at 1.0 us and starts at None"),
        ([event("b", 1.0)], "requests without an end"),
        ([event("e", 1.0)], "begins at None"),
        ([event("C", 2.0, args={"v": 1}), event("C", 1.0, args={"v": 1})], "goes back"),
        ([event("C", 2.0, args={"v": "hot"})], "no number"),
        ([event("Q", 2.0)], "phase 'Q'"),
        ([{"ph": "B"}], "KeyError"),
    ],
)
def test_the_checker_sees_broken_rules(tmp_path: Path, events: list[Any], complaint: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"traceEvents": events}))
    with pytest.raises(TraceError, match=complaint):
        check_trace(path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"traceEvents":[\n{"ph":"M"'])
def test_files_that_are_no_trace_get_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "no.json"
    path.write_text(text)
    with pytest.raises(TraceError):
        check_trace(path)
    with pytest.raises(TraceError, match="cannot be read"):
        check_trace(tmp_path / "nowhere.json")
